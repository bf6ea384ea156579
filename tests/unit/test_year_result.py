"""A year in numbers, in a file and in a page: what is shown is what was counted."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from year_result import DAYS, YEAR, by_name, page

from device_sim.results import FROZEN, SELF_DISTILLED
from device_sim.year.books import RECOGNISERS, TEMPLATE, Books, Ending
from device_sim.year.place import Who
from device_sim.year.plots import devices_figure, errors_figure, holdings_figure, smooth, spans
from device_sim.year.report import promised, report_html
from device_sim.year.result import Year, read_year, write_year
from device_sim.year.summary import course, pages_of, rates_over, thirds
from tutelage.errors import StorageError, UsageError


def test_a_year_is_written_and_read_as_it_is(tmp_path: Path):
    write_year(YEAR, tmp_path / "year.json")
    assert read_year(tmp_path / "year.json") == YEAR


def test_what_is_no_year_is_refused(tmp_path: Path):
    (tmp_path / "year.json").write_text("{")
    with pytest.raises(UsageError, match=r"year\.json"):
        read_year(tmp_path / "year.json")
    with pytest.raises(UsageError, match="devices"):
        Year.from_json({**YEAR.as_json(), "devices": 3})
    with pytest.raises(StorageError):
        read_year(tmp_path / "none.json")


def test_rates_are_shares_of_all_attempts_and_means_of_probes():
    pages = [page(2, 4), page(5, 2, probed=replace(page(5).probed, misses=by_name(None, 0.0, 0.3)))]
    frozen = rates_over(pages, FROZEN)
    assert frozen.missed == pytest.approx(6 / 20)
    assert frozen.failed == pytest.approx(4 / 20)
    assert frozen.admitted == 0.0
    assert frozen.hostile is None
    assert frozen.probe_misses == pytest.approx(0.4)
    assert rates_over(pages, TEMPLATE).admitted == pytest.approx(2 / 4)
    assert rates_over(pages, SELF_DISTILLED).probe_misses == pytest.approx(0.2)
    assert (frozen.strangers, frozen.strangers_new) == pytest.approx((0.02, 0.03))


def test_a_year_is_divided_into_thirds_without_gaps():
    days = int(YEAR.settings["days"])
    assert days == DAYS
    parts = [pages_of(YEAR, *ends) for ends in ((0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.0))]
    assert [[p.day for p in part] for part in parts] == [[2, 2], [5, 5], [8, 11, 8, 11]]
    assert set(thirds(YEAR)) == {"whole year", "first third", "second", "last third"}
    assert [day for day, _ in course(YEAR, FROZEN)] == [2, 5, 8, 11]


def test_books_count_by_who_came_and_start_anew_with_each_page():
    books = Books()
    good, late, bad = Ending(True, True), Ending(False, True), Ending(False, False)
    books.visit(Who.GENUINE, dict(zip(RECOGNISERS, (bad, late, good), strict=True)))
    books.visit(Who.IMPOSTOR, dict(zip(RECOGNISERS, (bad, good, bad), strict=True)))
    books.visit(Who.HOSTILE, dict(zip(RECOGNISERS, (bad, bad, late), strict=True)))
    found = books.attempts()
    assert (found.genuine, found.impostors, found.hostile) == (1, 1, 1)
    assert found.missed == by_name(1, 1, 0)
    assert found.failed == by_name(1, 0, 0)
    assert found.admitted == by_name(0, 1, 0)
    assert found.hostile_admitted == by_name(0, 0, 1)
    assert books.attempts().missed == by_name(0, 0, 0)


def test_books_tell_of_whoever_was_enrolled_twice():
    books = Books()
    books.enrolments.update(["a", "b", "b"])
    assert (books.promises().enrolments, books.promises().re_enrolments) == (3, 1)


def test_smoothed_values_are_means_of_the_latest_and_skip_what_is_missing():
    smoothed = smooth(np.array([1.0, np.nan, 3.0, 5.0, 7.0, np.nan]))
    assert smoothed.tolist() == [1.0, 1.0, 2.0, 3.0, 5.0, 5.0]
    assert np.isnan(smooth(np.array([np.nan]))).all()


def test_bands_of_a_device_are_its_outages_and_its_attack():
    assert spans(YEAR.devices[0], "network-out") == [(2, 5)]
    assert spans(YEAR.devices[0], "attack") == [(7, 9)]
    endless = replace(YEAR.devices[0], incidents=YEAR.devices[0].incidents[:-1])
    assert spans(endless, "attack") == [(7, 12)]
    assert spans(replace(endless, incidents=()), "attack") == []


def test_figures_show_each_recogniser_in_each_panel():
    for figure, panels in ((errors_figure(YEAR), 2), (devices_figure(YEAR), len(YEAR.devices))):
        assert len(figure.axes) == panels
        for axes in figure.axes:
            assert set(RECOGNISERS) <= {line.get_label() for line in axes.lines}
    upper = errors_figure(YEAR).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in upper.lines}
    assert lines[FROZEN] == pytest.approx([0.4] * 4)
    assert lines[SELF_DISTILLED] == pytest.approx([0.1] * 4)
    sums = {line.get_label(): line.get_ydata() for axes in holdings_figure(YEAR).axes for line in axes.lines}
    assert sums["first samples"].tolist() == [40, 100, 160, 220]
    assert sums["largest store, MiB"].tolist() == [1.0] * 4


def test_the_report_holds_the_numbers_and_loads_nothing():
    html = report_html(YEAR)
    assert html == report_html(YEAR)
    assert "40.0" in html
    assert "&lt;b&gt;released" in html
    assert "<b>released" not in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert html.count("<svg") == 3
    together = promised(YEAR)
    assert f"{together.unanswered:,} of {together.captures:,}" in html
    json.dumps(YEAR.as_json(), allow_nan=False)
