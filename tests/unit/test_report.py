from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from demo_result import PNG, RESULT, rates_changed, result_with

from device_sim.headline import findings, headline
from device_sim.report import MAX_CAPTURES, MAX_EVENTS, report_html, write_report
from device_sim.results import DetCurve, EventLine, Made, Rates, Result, TableRow
from tutelage.errors import Code, StorageError

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """What a browser makes of a page: elements, their attributes and their text; badly nested ones are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, first: str) -> list[str]:
        """The one row of a table that begins with this cell, without it."""
        (found,) = (cells for cells in self.rows if cells and cells[0] == first)
        return found[1:]

    @property
    def said(self) -> str:
        """All text of the page, with plain spaces."""
        return self.texts["body"][0].replace("\u00a0", " ")


@pytest.fixture(scope="module")
def text() -> str:
    return report_html(RESULT)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def page_of(result: Result) -> Page:
    """The page of `result` without its plots, which take most of the time."""
    return Page(report_html(replace(result, timeline={}, scores={}, det={})))


def bare() -> Result:
    """A result in which nothing was measured and nothing happened."""
    nothing = Rates(None, None)
    rows = tuple(TableRow(row.name, nothing, nothing) for row in RESULT.table)
    empty = {"trainings": (), "timeline": {}, "scores": {}, "det": {}, "kept": (), "events": (), "settings": {}}
    return result_with(table=rows, **empty)


def test_the_page_opens_with_the_sentence_the_numbers_make(page: Page):
    assert page.texts["title"] == ["Fingers & sensors – Tutelage"]
    assert page.texts["h1"] == ["Fingers & sensors"]
    assert headline(RESULT) in page.said
    for sentence in (*findings(RESULT), "Distilled on for 30 steps."):
        assert sentence in page.said


def test_the_page_says_so_where_self_distillation_did_not_help():
    assert "self-distillation did not help but harmed: 60.0 % with it" in page_of(rates_changed(0.1, 0.5, 0.6)).said


def test_every_rate_stands_in_the_table(page: Page):
    assert page.row("frozen student") == ["6.9 %", "51.7 %", "95.1 %", "61.2 %", "0.28 %", "0.56 %"]
    assert page.row("self-distilled") == ["4.9 %", "4.2 %", "97.2 %", "97.9 %", "0.29 %", "0 %"]
    assert page.row("teacher") == ["0 %", "0.35 %", "100 %", "99.90 %", "–", "–"]


def test_every_count_stands_in_the_page(page: Page):
    assert page.row("first samples") == ["1,324"]
    assert page.row("second samples") == ["73"]
    assert page.row("attempts sent to the teacher") == ["83"]
    assert page.row("labels stored") == ["71"]
    assert page.row("abstentions") == ["12"]
    assert page.row("stored labels that are right") == ["98.6 %"]
    assert page.row("below-interval") == ["211"]
    assert page.row("near-duplicate") == ["13"]


def test_a_training_shows_costs_verdict_and_reasons(page: Page):
    rows = [cells for cells in page.rows if len(cells) == 9]
    assert rows[1:] == [
        [
            "device 0",
            "5",
            "v1+1",
            "52",
            "100",
            "8.4 s",
            "320 MiB",
            "passed",
            "misses 2 of 12, before 6references 0 of 36",
        ],
        ["device 1", "9", "v1+2", "57", "37", "2 min 05 s", "1.4 GiB", "failed", "strangers 3 of 200 above 0 of 200"],
        ["device 1", "11", "v1+3", "58", "0", "1 min 00 s", "4.0 KiB", "killed", "–"],
    ]


def test_plots_are_in_the_page_and_say_what_they_show(page: Page):
    heard = [svg["aria-label"] for svg in page.all("svg")]
    assert [text.split(".")[0] for text in heard] == ["Scores", "Errors at every threshold", "Over simulated time"]
    for words in ("accept from 31", "genuine, frozen, worn (n = 3)", "FMR 0.1 %", "device 1", "sensor wear", "v1+1"):
        assert words in page.said
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_kept_captures_are_shown_with_label_score_and_reason(page: Page):
    images = page.all("img")
    assert [image["src"] for image in images] == [f"data:image/png;base64,{PNG}"] * 2
    assert [image["alt"] for image in images] == ["first sample of anna", "second sample of nobody"]
    for words in ("anna", "first sample, score 41.2", "device 0, day 3", "no label", "score –", "day 4.5", "abstained"):
        assert words in page.said


def test_many_captures_are_cut_and_the_page_says_so():
    made = page_of(result_with(kept=RESULT.kept[:1] * (MAX_CAPTURES + 1)))
    assert len(made.all("img")) == MAX_CAPTURES
    assert f"Shown: {MAX_CAPTURES} of {MAX_CAPTURES + 1}." in made.said


@pytest.mark.parametrize(
    ("kind", "why"), [("images", "only where that was asked for"), ("synthetic", "no sample was kept")]
)
def test_without_captures_the_page_says_why(kind: str, why: str):
    assert why in page_of(result_with(kind=kind, kept=())).said


def test_the_log_is_folded_away_and_whole(page: Page):
    assert page.texts["summary"] == ["2 events", "3 settings"]
    assert all("open" not in attributes for attributes in page.all("details"))
    assert ["5", "device\u00a00", "gate-passed", "misses 2 of 12, before 6"] in page.rows
    assert ["9", "device\u00a01", "gate-failed", "strangers 3 of 200 above 0 of 200"] in page.rows


def test_a_long_log_is_cut_and_the_page_says_so():
    events = tuple(EventLine(day, 0, "gate-passed", f"reason {day}.") for day in range(MAX_EVENTS + 5))
    made = page_of(result_with(events=events))
    assert f"{MAX_EVENTS + 5:,} events, the first {MAX_EVENTS:,} here and all in result.json" in made.texts["summary"]
    assert f"reason {MAX_EVENTS - 1}." in made.said
    assert f"reason {MAX_EVENTS}." not in made.said


def test_who_wants_to_repeat_it_finds_what_it_was_made_with(page: Page):
    facts = {cells[0]: cells[1] for cells in page.rows if len(cells) == 2}
    assert [facts[name] for name in ("commit", "machine", "Python", "torch", "seeds", "date")] == [
        "abc1234",
        "2 x Some Processor",
        "3.11.9",
        "2.13.0",
        "1, 7",
        "2026-01-05T12:00:00+00:00",
    ]
    assert facts["device.sampling.accept_score"] == "31.0"
    assert facts["persons"] == "12"


def test_nothing_is_loaded_from_anywhere(text: str, page: Page):
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)|<script|<link|<iframe|javascript:", text)
    loaded = [a[name] for _, a in page.elements for name in ("src", "href", "xlink:href", "action") if a.get(name)]
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in loaded)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_the_page_forbids_the_browser_to_load_anything(page: Page):
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_the_page_adapts_to_dark_and_to_paper(page: Page):
    (style,) = page.texts["style"]
    assert "@media screen and (prefers-color-scheme: dark)" in style
    assert "@media print" in style
    # A closed style element would make the rest of the sheet visible text.
    assert "<" not in style


HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=y>&amp;\x00\x1b[2J"


def test_hostile_text_stays_text_wherever_it_stands(page: Page):
    hostile = result_with(
        title=HOSTILE,
        made=Made(HOSTILE, HOSTILE, HOSTILE, HOSTILE, (), HOSTILE),
        settings={HOSTILE: {HOSTILE: HOSTILE}, "notes": [HOSTILE]},
        table=(*RESULT.table, TableRow(HOSTILE, Rates(0.1, 0.1), Rates(0.1, 0.1))),
        samples=replace(RESULT.samples, dropped={HOSTILE: 1}),
        trainings=(replace(RESULT.trainings[0], generation=HOSTILE, reasons=(HOSTILE, HOSTILE)),),
        timeline={HOSTILE: tuple(replace(p, generation=f"{p.day}{HOSTILE}") for p in RESULT.timeline["device 0"])},
        scores={HOSTILE: (1.0, 2.0)},
        det={HOSTILE: DetCurve((0.1, 0.2), (0.2, 0.1))},
        kept=(replace(RESULT.kept[0], label=HOSTILE, reason=HOSTILE),),
        events=(EventLine(0, 0, HOSTILE, HOSTILE),),
    )
    text = report_html(hostile)
    made = Page(text)
    assert {tag for tag, _ in made.elements} <= {tag for tag, _ in page.elements}
    assert not [name for _, attributes in made.elements for name in attributes if name.startswith("on")]
    assert "\x00" not in text
    assert "\x1b" not in text
    assert made.texts["h1"] == [HOSTILE.replace("\x00", "�").replace("\x1b", "�")]


def test_a_result_of_nothing_still_makes_a_page_that_says_so():
    made = page_of(bare())
    assert made.all("svg") == []
    assert made.said.count("Nothing was measured for this plot.") == 3
    for words in ("was not measured", "No training ran", "None are shown", "No events were recorded."):
        assert words in made.said
    assert made.row("frozen student") == ["–"] * 6


def test_names_without_any_values_make_no_plot():
    made = Page(report_html(result_with(scores={"genuine": ()}, det={"teacher": DetCurve((), ())})))
    assert len(made.all("svg")) == 1


def test_notes_may_be_one_sentence_or_none():
    assert "Once." in page_of(result_with(settings={"notes": "Once."})).texts["li"]


def test_the_page_is_written_whole_and_the_same_each_time(tmp_path: Path, text: str):
    path = tmp_path / "report.html"
    write_report(RESULT, path)
    assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_full_disk_leaves_the_last_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "report.html"
    path.write_text("last")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as refused:
        write_report(bare(), path)
    assert refused.value.code is Code.STORAGE_FULL
    assert path.read_text() == "last"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
