"""State as bytes, and the money of an incident."""

import json
import struct

import numpy as np
import pytest

from spendbrake.detectors.base import Evidence
from spendbrake.detectors.incident import Incident
from spendbrake.detectors.memory.stored import pack, unpack
from spendbrake.schemas.money import MAX_NANO


def test_a_state_comes_back_bit_by_bit() -> None:
    state = {
        "a": np.arange(7, dtype=np.float32) / 3,
        "deep": {"b": [np.arange(6, dtype=np.uint8).reshape(2, 3), {"c": np.array([2**62, -1])}], "empty": np.zeros(0)},
        "x": [0.1, 1e-300, 2**60, None, True, "ü"],
    }
    back = unpack(pack(state))
    assert back["x"] == state["x"]
    assert pack(back) == pack(state)
    assert back["deep"]["b"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    back["a"][0] = 9.0
    assert state["a"][0] == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, np.zeros(2, dtype=complex)])
def test_what_has_no_exact_form_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        pack({"x": value})


def headed(head: object) -> bytes:
    text = json.dumps(head).encode()
    return b"SBD1" + struct.pack("<I", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SBD1",
        b"PK\x03\x04....",
        pack({"a": np.zeros(9)})[:-1],
        headed([1]),
        headed({"$array": "f8"}),
        headed({"a": {"$array": "O8", "shape": [1]}}),
        headed({"a": {"$array": "f8", "shape": [-1]}}),
        b"SBD1\xff\xff\xff\xff{}",
    ],
)
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="detector state"):
        unpack(data)


def test_numbers_of_numpy_and_wide_ints_keep_their_values() -> None:
    state = {"x": [np.float64(0.1), 2**70], "a": [np.arange(3), None]}
    back = unpack(pack(state))
    assert back["x"] == [0.1, 2**70]
    assert back["a"][0].tolist() == [0, 1, 2]


def test_no_excess_leaves_int64_whatever_a_detector_makes_of_a_price() -> None:
    incident = Incident(id="i", family="price", detector="d", where="", node="a", opened_at=0.0, until=0.0)
    for number in range(20):
        incident.add("price", Evidence(excess=2**70, text="", subject=f"s{number}"), None, 0.0, 60.0)
    assert incident.excess == MAX_NANO
    assert max(incident.parts.values()) == MAX_NANO
