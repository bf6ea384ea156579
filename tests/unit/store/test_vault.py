from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
from device_store import (
    code_of,
    keep_first,
    keep_nothing,
    on_disk,
    opened,
    raw_change,
    raw_rows,
)

from device_sim.records import State
from device_sim.store import Store
from tutelage.captures import Pixels, encode_png
from tutelage.errors import Code
from tutelage.sealing import OVERHEAD_BYTES

OTHER_KEY = bytes(32)


def test_neither_file_nor_log_holds_a_piece_of_a_capture_or_a_name(path: Path, rng: np.random.Generator):
    noise = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    flat = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    with opened(path) as store:
        store.enrol("anna", [noise, flat])
        keep_first(store, noise)
        while_open = on_disk(path)
        assert (path.parent / (path.name + "-wal")).stat().st_size > 0
    secrets = [b"\x89PNG", b"IDAT", b"IHDR", b"anna"]
    for image in (noise, flat):
        png = encode_png(image)
        secrets += [png[start : start + 12] for start in range(0, len(png) - 12, 12)]
        secrets += [row[start : start + 16].tobytes() for row in image[:8] for start in (0, 16, 32, 48)]
    for data in (while_open, on_disk(path)):
        assert len(data) > 12_000
        assert [s for s in secrets if s in data] == []
    assert b"sample-interval" in while_open  # the search itself finds what is not sealed


def test_a_dropped_capture_leaves_no_sealed_bytes_behind_either(path: Path, capture: Callable[[], Pixels]):
    with opened(path) as store:
        sample_id = keep_first(store, capture())
        store.close()
        (sealed,) = raw_rows(path, "SELECT capture FROM samples")[0]
        pieces = [sealed[start : start + 32] for start in range(0, len(sealed) - 32, 512)]
        assert any(piece in on_disk(path) for piece in pieces)
    with opened(path) as store:
        store.mark([sample_id], State.DROPPED, note="asked for")
    assert [piece for piece in pieces if piece in on_disk(path)] == []


def test_a_wrong_key_is_met_at_the_start_and_does_no_harm(path: Path, capture: Callable[[], Pixels]):
    with opened(path) as store:
        store.enrol("anna", [capture()])
    before = path.read_bytes()
    assert code_of(lambda: opened(path, key=OTHER_KEY)) is Code.KEY_WRONG
    assert code_of(lambda: opened(path, key=b"short")) is Code.KEY_WRONG
    assert path.read_bytes() == before
    with opened(path) as store:
        assert store.reference_capture(1).shape == (64, 64)


def test_a_key_of_the_wrong_length_makes_no_store(path: Path):
    assert code_of(lambda: opened(path, key=b"short")) is Code.KEY_WRONG
    with opened(path) as store:
        assert store.persons() == ()


def test_a_capture_moved_to_another_row_does_not_open(path: Path, capture: Callable[[], Pixels]):
    with opened(path) as store:
        first, second = keep_first(store, capture()), keep_first(store, capture())
    raw_change(path, "UPDATE samples SET capture = (SELECT capture FROM samples WHERE id = 2) WHERE id = 1")
    with opened(path) as store:
        assert code_of(lambda: store.sample_capture(first)) is Code.STORE_CORRUPT
        assert store.sample_capture(second).shape == (64, 64)


def test_a_capture_moved_to_another_device_does_not_open(tmp_path: Path, capture: Callable[[], Pixels]):
    for name in ("a.db", "b.db"):
        with opened(tmp_path / name) as store:
            keep_first(store, capture())
    ((sealed,),) = raw_rows(tmp_path / "a.db", "SELECT hex(capture) FROM samples")
    raw_change(tmp_path / "b.db", f"UPDATE samples SET capture = x'{sealed}'")
    with opened(tmp_path / "b.db") as store:
        assert code_of(lambda: store.sample_capture(1)) is Code.STORE_CORRUPT


def test_the_file_and_its_log_are_the_owners_alone(path: Path, store: Store):
    keep_nothing(store)
    for file in path.parent.glob(path.name + "*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_sealing_costs_what_the_store_reckons(store: Store, path: Path, capture: Callable[[], Pixels]):
    pixels = capture()
    keep_first(store, pixels)
    ((size,),) = raw_rows(path, "SELECT length(capture) FROM samples")
    assert size == len(encode_png(pixels)) + OVERHEAD_BYTES
