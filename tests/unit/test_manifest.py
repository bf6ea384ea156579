"""Manifests: every rule, with the line that breaks it; writing; loading with losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from manifest_files import HEADER, image, persons_folder, refusal, table

from tutelage.captures import read_capture
from tutelage.errors import Code, StorageError
from tutelage.manifest import (
    Manifest,
    Row,
    Split,
    load_captures,
    read_manifest,
    split_folder,
    write_manifest,
)


def test_rows_come_in_order_with_paths_joined_to_the_folder(tmp_path: Path) -> None:
    outside = image(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "set").mkdir()
    path = table(
        tmp_path / "set",
        "a/1.png,ann,cloud,dry",
        "a/2.png,ann,teacher,",
        "../elsewhere/y.png,bob,stranger,any text; even this",
        "b.png,Zoë 9,enrol,wet",
    )
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{outside},Zoë 9,probe,\n")
    assert read_manifest(path).rows == (
        Row(tmp_path / "set/a/1.png", "ann", Split.CLOUD, "dry"),
        Row(tmp_path / "set/a/2.png", "ann", Split.TEACHER, ""),
        Row(tmp_path / "set/../elsewhere/y.png", "bob", Split.STRANGER, "any text; even this"),
        Row(tmp_path / "set/b.png", "Zoë 9", Split.ENROL, "wet"),
        Row(outside, "Zoë 9", Split.PROBE, ""),
    )


def test_spreadsheet_habits_are_accepted(tmp_path: Path) -> None:
    for name in ("1.png", "a, b.png"):
        (tmp_path / name).touch()
    path = tmp_path / "data.csv"
    path.write_bytes(
        b"\xef\xbb\xbfperson, split ,note,condition,path\r\n"
        b" ann , teacher ,mine, bright ,1.png\r\n\r\n"
        b'bob,stranger,,"two\r\nlines","a, b.png"\r\n'
    )
    assert read_manifest(path).rows == (
        Row(tmp_path / "1.png", "ann", Split.TEACHER, "bright"),
        Row(tmp_path / "a, b.png", "bob", Split.STRANGER, "two\r\nlines"),
    )


def test_selections_take_cloud_rows_for_both_trainings() -> None:
    rows = tuple(
        Row(Path(f"{number}.png"), person, split, "")
        for number, (person, split) in enumerate(
            [
                ("b", Split.DISTIL),
                ("a", Split.CLOUD),
                ("c", Split.TEACHER),
                ("a", Split.TEACHER),
                ("d", Split.ENROL),
                ("b", Split.CLOUD),
            ]
        )
    )
    manifest = Manifest(rows)
    assert manifest.select(Split.TEACHER) == (rows[1], rows[2], rows[3], rows[5])
    assert manifest.select(Split.DISTIL) == (rows[0], rows[1], rows[5])
    assert manifest.select(Split.CLOUD) == (rows[1], rows[5])
    assert manifest.select(Split.TEACHER, Split.DISTIL) == rows[:4] + rows[5:]
    assert manifest.select(Split.ENROL, Split.PROBE) == (rows[4],)
    assert manifest.select() == ()
    assert manifest.persons(Split.TEACHER) == ("a", "c", "b")
    assert manifest.persons(*Split) == ("b", "a", "c", "d")


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    header = ",".join(name for name in HEADER.split(",") if name != column)
    message = refusal(lambda: read_manifest(table(tmp_path, "1.png,ann,teacher", header=header)))
    assert message.startswith(f"{tmp_path / 'data.csv'}: line 1: missing column {column}: ")
    assert message.endswith(HEADER)


def test_an_empty_file_misses_all_columns(tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    assert "line 1: missing column path, person, split, condition" in refusal(
        lambda: read_manifest(tmp_path / "data.csv")
    )


def test_a_repeated_column_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "1.png,ann,teacher,,bob", header=HEADER + ",person")
    assert "line 1: column person comes twice" in refusal(lambda: read_manifest(path))


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    assert "no rows" in refusal(lambda: read_manifest(table(tmp_path)), Code.DATA_INSUFFICIENT)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2.png,ann,train,", "line 3: unknown split 'train': use one of teacher, distil, cloud, stranger, enrol"),
        ("2.png,ann,,", "line 3: unknown split ''"),
        ("2.png,ann,Teacher,", "line 3: unknown split 'Teacher'"),
        ("2.png,,teacher,", "line 3: the person's name is empty"),
        ("2.png,a\x1bnn,teacher,", "line 3: the person's name holds characters that cannot be printed"),
        ("2.png,ann,teacher", "line 3: another number of cells than the first line"),
        ("2.png,ann,teacher,dry,more", "line 3: another number of cells than the first line"),
        (",ann,teacher,", "line 3: there is no file ''"),
    ],
)
def test_a_broken_row_is_reported_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    path = table(tmp_path, "1.png,ann,teacher,", line)
    assert refusal(lambda: read_manifest(path)).startswith(f"{path}: {words}")


@pytest.mark.parametrize("name", ["absent.png", ".", "sub/absent.png", "nul\0.png", "long" * 100])
def test_an_absent_file_is_reported_with_its_line(tmp_path: Path, name: str) -> None:
    path = table(tmp_path, f"{name},ann,teacher,", make_images=False)
    message = refusal(lambda: read_manifest(path))
    assert message.startswith(f"{path}: line 2: there is no file {name!r} in {tmp_path}: ")


def test_all_broken_rows_are_reported_at_once(tmp_path: Path) -> None:
    path = table(tmp_path, "1.png,ann,teacher,", "2.png,ann,train,", "3.png,,teacher,", "1.png,ann,teacher,")
    lines = refusal(lambda: read_manifest(path)).split("\n  ")
    assert [line[: line.index(":", len(str(path)) + 2 if line.startswith("/") else 0)] for line in lines] == [
        f"{path}: line 3",
        "line 4",
        "line 5",
    ]


def test_a_long_list_of_broken_rows_is_cut(tmp_path: Path) -> None:
    path = table(tmp_path, *(f"{number}.png,ann,train," for number in range(25)))
    lines = refusal(lambda: read_manifest(path)).split("\n  ")
    assert len(lines) == 11
    assert lines[-1] == "and 15 more"


def test_a_file_named_twice_is_refused_however_it_is_spelt(tmp_path: Path) -> None:
    path = table(tmp_path, "a/1.png,ann,teacher,", "b/2.png,bob,stranger,", "a/../a/1.png,ann,distil,")
    assert "line 4: the file of line 2 again" in refusal(lambda: read_manifest(path))
    (tmp_path / "link.png").symlink_to(tmp_path / "b/2.png")
    path = table(tmp_path, "b/2.png,bob,stranger,", "link.png,ann,teacher,")
    assert "line 3: the file of line 2 again" in refusal(lambda: read_manifest(path))


@pytest.mark.parametrize("cloud", [Split.TEACHER, Split.DISTIL, Split.CLOUD])
@pytest.mark.parametrize("other", [Split.ENROL, Split.STREAM, Split.PROBE, Split.STRANGER])
def test_a_person_of_the_cloud_is_nowhere_else(tmp_path: Path, cloud: Split, other: Split) -> None:
    path = table(tmp_path, "1.png,ann,enrol,", f"2.png,bob,{cloud},", f"3.png,bob,{other},")
    words = f"{path}: person bob is in {cloud} (line 3) and in {other} (line 4): "
    assert refusal(lambda: read_manifest(path)).startswith(words)


@pytest.mark.parametrize("other", [Split.ENROL, Split.STREAM, Split.PROBE])
def test_a_stranger_is_on_no_device(tmp_path: Path, other: Split) -> None:
    path = table(tmp_path, "1.png,bob,stranger,", f"2.png,bob,{other},")
    assert f"person bob is in stranger (line 2) and in {other} (line 3)" in refusal(lambda: read_manifest(path))


@pytest.mark.parametrize("split", [Split.STREAM, Split.PROBE])
def test_a_person_on_a_device_must_be_enrolled(tmp_path: Path, split: Split) -> None:
    path = table(tmp_path, "1.png,ann,enrol,", f"2.png,bob,{split},")
    assert f"person bob is in {split} (line 3) but not in enrol" in refusal(lambda: read_manifest(path))


def test_teacher_and_distil_may_share_persons(tmp_path: Path) -> None:
    path = table(tmp_path, "1.png,ann,teacher,", "2.png,ann,distil,", "3.png,ann,cloud,", "4.png,bob,enrol,")
    assert len(read_manifest(path).rows) == 4


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    assert "no such file" in refusal(lambda: read_manifest(path))
    assert "no such file" in refusal(lambda: read_manifest(tmp_path))
    path.write_bytes(HEADER.encode() + b"\n1.png,J\xf6rg,teacher,\n")
    assert "no UTF-8" in refusal(lambda: read_manifest(path))
    path.write_text(HEADER + '\n1.png,ann,teacher,dry\n2.png,"ann" b,teacher,dry\n')
    assert "line 3: no CSV" in refusal(lambda: read_manifest(path))
    path.write_text(HEADER + '\n1.png,"ann,teacher,dry\n')
    assert "no CSV" in refusal(lambda: read_manifest(path))


def test_a_written_manifest_reads_the_same(tmp_path: Path) -> None:
    rows = (
        Row(image(tmp_path / "set" / "a, b" / '1 "x".png'), "Zoë", Split.ENROL, "wet, cold\nand dark"),
        Row(image(tmp_path / "set" / "2.png"), "Zoë", Split.PROBE, ""),
        Row(image(tmp_path / "other" / "3.png"), "bob", Split.STRANGER, "dry"),
    )
    path = tmp_path / "set" / "data.csv"
    write_manifest(Manifest(rows), path)
    assert read_manifest(path).rows == rows
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines[0] == HEADER
    assert lines[3:] == ["2.png,Zoë,probe,", f"{tmp_path}/other/3.png,bob,stranger,dry", ""]


def test_a_manifest_moves_with_its_folder(tmp_path: Path) -> None:
    row = Row(image(tmp_path / "old" / "p" / "1.png"), "ann", Split.TEACHER, "")
    write_manifest(Manifest((row,)), tmp_path / "old" / "data.csv")
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new" / "data.csv").rows[0].path == tmp_path / "new/p/1.png"


def test_paths_relative_to_the_process_are_written_relative_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(tmp_path / "set" / "p" / "1.png")
    monkeypatch.chdir(tmp_path)
    write_manifest(Manifest((Row(Path("set/p/1.png"), "ann", Split.TEACHER, ""),)), Path("set/data.csv"))
    assert (tmp_path / "set/data.csv").read_text() == f"{HEADER}\np/1.png,ann,teacher,\n"


def test_a_failed_write_leaves_the_former_table(tmp_path: Path) -> None:
    path = table(tmp_path, "1.png,ann,teacher,")
    before = path.read_bytes()
    bad = Manifest((Row(tmp_path / "\udcff.png", "ann", Split.TEACHER, ""),))
    assert "no valid text" in refusal(lambda: write_manifest(bad, path))
    assert path.read_bytes() == before
    with pytest.raises(StorageError) as caught:
        write_manifest(Manifest(()), tmp_path / "absent" / "data.csv")
    assert caught.value.code is Code.STORAGE_FAILED
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.png", "data.csv"]


def test_one_unreadable_image_among_many_is_skipped_and_reported(tmp_path: Path) -> None:
    rows = split_folder(persons_folder(tmp_path, [3] * 4)).rows
    rows[5].path.write_bytes(b"")
    rows[7].path.unlink()
    loaded = load_captures(rows)
    assert loaded.rows == [row for row in rows if row not in (rows[5], rows[7])]
    for capture, row in zip(loaded.captures, loaded.rows, strict=True):
        np.testing.assert_array_equal(capture, read_capture(row.path))
    assert [item.row for item in loaded.skipped] == [rows[5], rows[7]]
    assert loaded.skipped[0].reason == f"{rows[5].path}: the file is empty: copy it again or leave it out"


def test_rows_without_any_readable_image_are_refused(tmp_path: Path) -> None:
    rows = [Row(tmp_path / f"{number}.png", "ann", Split.TEACHER, "") for number in range(3)]
    message = refusal(lambda: load_captures(rows), Code.DATA_INSUFFICIENT)
    assert message.startswith(f"none of 3 images could be read, the first: {tmp_path / '0.png'}: ")


def test_no_rows_load_nothing() -> None:
    loaded = load_captures([])
    assert (loaded.captures, loaded.rows, loaded.skipped) == ([], [], [])
