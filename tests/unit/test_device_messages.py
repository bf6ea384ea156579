"""The words of a device and the numbers of its messages are the same words; what is no number is absent."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc")

from device_sim import device_messages as said
from device_sim.device_tables import word
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.errors import RequestError

ALL = [
    (said.DECISIONS, pb.Decision),
    (said.KINDS, pb.SampleKind),
    (said.RULES, pb.SampleRule),
    (said.STATES, pb.SampleState),
    (said.SOURCES, pb.LabelSource),
    (said.EVENTS, pb.EventKind),
]


@pytest.mark.parametrize(
    ("numbers", "enum"), ALL, ids=lambda each: getattr(each, "DESCRIPTOR", None) and each.DESCRIPTOR.name
)
def test_every_word_has_its_number_and_every_number_its_word(numbers, enum):
    assert set(numbers.values()) == set(enum.values()) - {0}
    assert {word(enum, number) for number in numbers.values()} == {str(each.value) for each in numbers}


def test_what_selects_nothing_is_refused():
    assert said.words_of([pb.SAMPLE_STATE_USED], said.STATES, "states") == {"used"}
    for number in (0, 99):
        with pytest.raises(RequestError, match="states"):
            said.words_of([number], said.STATES, "states")
