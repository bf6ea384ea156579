from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from demo_result import RESULT
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from PIL import Image
from scipy.special import ndtri

from device_sim.plot_style import (
    BLUE,
    GREEN,
    HUES,
    LINES,
    PURPLE,
    VERMILLION,
    as_png,
    as_svg,
    inline_svg,
    label,
    styles,
)
from device_sim.plots import SCORE_BIN, coverage_figure, det_figure, score_figure, timeline_figure
from device_sim.results import DayPoint, DetCurve, ScoreMarks

MARKS = ScoreMarks(30.0, 33.0, 60.0)


def only_axes(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def outlines(axes: Axes) -> dict[str, StepPatch]:
    found = (patch for patch in axes.patches if isinstance(patch, StepPatch))
    return {patch.get_label(): patch for patch in found if patch.get_label()}


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """Points (N, 2) of all named lines."""
    return {line.get_label(): line.get_xydata() for line in axes.lines if not line.get_label().startswith("_")}


def uprights(axes: Axes) -> list[float]:
    """Places of lines that go straight up."""
    places = (line.get_xdata() for line in axes.lines)
    return [float(x[0]) for x in places if len(x) == 2 and x[0] == x[1]]


def test_a_distribution_is_the_share_of_captures_in_each_bin():
    axes = only_axes(score_figure(RESULT.scores, MARKS))
    found = outlines(axes)
    assert list(found) == [f"{name} (n = {len(values)})" for name, values in RESULT.scores.items()]
    for (name, values), patch in zip(RESULT.scores.items(), found.values(), strict=True):
        share, edges, _ = patch.get_data()
        for place, (low, high) in enumerate(pairwise(edges)):
            assert high - low == SCORE_BIN
            assert share[place] == sum(low <= v < high for v in values) / len(values), name
        assert share.sum() == pytest.approx(1.0)


def test_the_rules_scores_are_marked():
    axes = only_axes(score_figure(RESULT.scores, ScoreMarks(25.0, 31.0, 52.0)))
    assert uprights(axes) == [25.0]
    (span,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert (span.get_x(), span.get_x() + span.get_width()) == (31.0, 52.0)
    assert [text.get_text() for text in axes.texts] == ["accept from 25", "sample interval 31 to 52"]


def test_scores_beyond_any_measurement_are_drawn_at_the_edge():
    axes = only_axes(score_figure({"genuine": [250.0, -3.0]}, MARKS))
    share, edges, _ = outlines(axes)["genuine (n = 2)"].get_data()
    assert (share[0], share[-1], edges[-1]) == (0.5, 0.5, 102.0)


def test_names_without_scores_are_left_out():
    assert legend_texts(score_figure({"none": [], "some": [1.0]}, MARKS)) == ["some (n = 1)"]
    assert legend_texts(score_figure({}, MARKS)) == []


def test_det_axes_are_normal_deviates():
    axes = only_axes(det_figure(RESULT.det))
    for axis in (axes.xaxis, axes.yaxis):
        assert axis.get_transform().transform([0.001, 0.2]) == pytest.approx([ndtri(0.001), ndtri(0.2)])
        for rate in axis.get_majorticklocs():
            assert axis.get_major_formatter()(rate, 0) == f"{rate * 100:g} %"
    assert 0.001 in axes.xaxis.get_majorticklocs()
    assert axes.get_xlim() == (0.0005, 0.5)


def test_det_curves_hold_the_rates_with_zeros_at_the_edge():
    axes = only_axes(det_figure(RESULT.det))
    drawn, (x_low, _), (y_low, y_high) = lines(axes), axes.get_xlim(), axes.get_ylim()
    assert drawn["self-distilled"].tolist() == [[0.2, 0.01], [0.001, 0.03]]
    # FMR 1.0 lies beyond the axis; FNMR 1.0 and FMR 0 have no finite deviate.
    assert drawn["frozen student"].tolist() == [[0.1, 0.2], [0.001, 0.6], [x_low, y_high]]
    assert (y_low, y_high) == (0.01, 0.6)


def test_the_operating_point_is_marked():
    figure = det_figure(RESULT.det)
    assert uprights(only_axes(figure)) == [0.001]
    assert [text.get_text() for text in only_axes(figure).texts] == ["FMR 0.1 %"]


@pytest.mark.parametrize("curves", [{}, {"none": DetCurve((), ())}, {"all": DetCurve((0.0, 1.0), (1.0, 0.0))}])
def test_curves_of_next_to_nothing_can_be_drawn(curves: dict[str, DetCurve]):
    assert as_svg(det_figure(curves)).startswith("<?xml")


def test_each_device_has_a_panel_with_its_misses():
    figure = timeline_figure(RESULT.timeline)
    for axes, (device, points) in zip(figure.axes, RESULT.timeline.items(), strict=True):
        assert axes.get_title(loc="left") == device
        drawn = lines(axes)
        expected = np.array([[p.day, p.frozen_fnmr] for p in points], dtype=float)
        assert np.array_equal(drawn["frozen student"], expected)
        expected = np.array([[p.day, p.live_fnmr] for p in points], dtype=float)
        assert np.array_equal(drawn["running student"], expected, equal_nan=True)


def test_a_change_of_generation_is_marked_with_its_name():
    first, second = timeline_figure(RESULT.timeline).axes
    assert (uprights(first), [text.get_text() for text in first.texts]) == ([2.0], ["v1+1"])
    assert (uprights(second), len(second.texts)) == ([], 0)


def test_a_revert_is_marked_too_and_neighbours_do_not_cover_each_other():
    names = ["v1", "v1+1", "v1", "v1+2"]
    points = [DayPoint(day, 0.1, 0.1, 0.1, name) for day, name in enumerate(names)]
    (axes,) = timeline_figure({"device 0": points}).axes
    assert [text.get_text() for text in axes.texts] == ["v1+1", "v1", "v1+2"]
    assert len({text.xy[1] for text in axes.texts}) == 3


def test_wear_is_ground_only_where_it_is_known():
    figure = timeline_figure(RESULT.timeline)
    assert [len(axes.collections) for axes in figure.axes] == [1, 0]
    assert legend_texts(figure) == ["sensor wear", "frozen student", "running student", "new generation"]


@pytest.mark.parametrize(
    ("count", "panels"), [(0, (1, 1)), (1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (7, (3, 3))]
)
def test_panels_make_a_grid(count: int, panels: tuple[int, int]):
    points = RESULT.timeline["device 0"]
    figure = timeline_figure({f"device {n}": points for n in range(count)})
    assert figure.axes[0].get_gridspec().get_geometry() == panels
    assert sum(axes.axison for axes in figure.axes) == max(count, 0)


def test_all_data_stays_below_the_names_of_generations():
    axes = timeline_figure(RESULT.timeline).axes[0]
    lowest_name = 0.82
    assert axes.get_ylim()[1] * lowest_name > 0.5


def test_coverage_is_drawn_in_order():
    axes = only_axes(coverage_figure({"margin": [(0.9, 0.97), (0.2, 1.0), (0.6, 0.985)], "none": []}))
    assert lines(axes)["margin"].tolist() == [[0.2, 1.0], [0.6, 0.985], [0.9, 0.97]]
    assert axes.get_xlim() == (0.0, 1.0)


def test_a_student_has_one_hue_everywhere():
    names = [
        "genuine, frozen, new sensor",
        "genuine, frozen, worn",
        "self-distilled",
        "teacher",
        "strangers, frozen, worn",
    ]
    found = styles(names)
    assert [style.colour for style in found] == [VERMILLION, VERMILLION, BLUE, GREEN, PURPLE]
    assert [style.line for style in found] == ["--", "-", "-", "-.", ":"]


def test_no_two_series_look_alike():
    names = [f"method {n}" for n in range(12)] + ["frozen a", "frozen b", "frozen c", "self-distilled, day 9"]
    found = styles(names)
    assert len(set(found)) == len(names)
    assert all(style.colour in HUES and style.line in LINES for style in found)


def test_more_series_than_styles_still_have_one():
    assert len(styles([f"method {n}" for n in range(100)])) == 100


def test_names_mean_nothing_to_the_plotting_library():
    curves = {
        "_hidden": RESULT.det["self-distilled"],
        "$\\frac{": RESULT.det["self-distilled"],
        "x" * 99: DetCurve((0.1,), (0.1,)),
    }
    figure = det_figure(curves)
    assert legend_texts(figure) == [" _hidden", r"\$\frac{", "x" * 59 + "…"]
    assert as_svg(figure)
    assert label("a\x1bb") == "a�b"


def test_names_in_any_script_are_no_reason_to_warn():
    assert "指紋" in as_svg(det_figure({"指紋": RESULT.det["self-distilled"]}))


def test_the_same_figure_gives_the_same_bytes_and_leaves_no_state():
    before = dict(mpl.rcParams)
    texts = [as_svg(score_figure(RESULT.scores, MARKS)) for _ in range(2)]
    assert texts[0] == texts[1]
    assert dict(mpl.rcParams) == before


def test_a_picture_file_is_a_picture_on_white_ground():
    picture = Image.open(io.BytesIO(as_png(score_figure(RESULT.scores, MARKS))))
    assert picture.format == "PNG"
    assert picture.size == (1200, 600)
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_in_a_page_a_figure_takes_its_colours_and_keeps_its_ids_to_itself():
    text = inline_svg(score_figure(RESULT.scores, MARKS), "scores", 'says "what" <is>')
    root = ElementTree.fromstring(text.replace("xlink:href", "href"))
    assert root.get("aria-label") == 'says "what" <is>'
    assert root.get("viewBox")
    assert root.get("width") is None
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) > 10
    assert all(name.startswith("scores-") for name in ids)
    referred = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert {a or b for a, b in referred} <= set(ids)
    assert not re.search(rf": ({'|'.join(HUES)})\b", text)
    assert "var(--vermillion, #d55e00)" in text
    assert "http" not in text
    assert "<style" not in text


def test_markup_in_a_name_stays_text_in_a_figure():
    scores = {"</svg><script>alert(1)</script>": [1.0]}
    text = inline_svg(score_figure(scores, MARKS), "scores", "")
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_panels_name_is_cut_and_escaped():
    points = tuple(replace(point, generation="$_") for point in RESULT.timeline["device 0"])
    figure = timeline_figure({"$x" * 50: (RESULT.timeline["device 0"][0], *points[1:])})
    assert as_svg(figure)
    assert figure.axes[0].get_title(loc="left").endswith("…")
