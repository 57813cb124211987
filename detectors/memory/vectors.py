"""Token vectors (model, input, output) of the last day, in fixed memory: which calls have been made before."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendbrake.detectors.memory.labels import pseudonym
from spendbrake.detectors.memory.stored import State
from spendbrake.schemas.reading import Call

SLOTS = 2_048
"""One vector each; a later one takes the place of the one before it."""
SPARSE = SLOTS // 2
"""Up to so many slots in use are kept one by one."""
FORGOTTEN_S = 86_400.0
AGAIN_S = 60.0
"""Sooner than this a call is tried again, not run again."""
_MIX, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1


class Vectors:
    """A table of 2,048 fingerprints of 24 bits, each with the session it came from and its time."""

    def __init__(self) -> None:
        self._take_up(np.zeros(SLOTS, np.uint32), np.zeros(SLOTS, np.uint32))

    def _take_up(self, tags: NDArray[np.uint32], times: NDArray[np.uint32]) -> None:
        self._tags, self._times = tags, times
        # Python's view of the arrays: a single place of it is read and written at a third of the cost.
        self._tag, self._at = tags.data, times.data

    def again(self, call: Call) -> bool:
        """Say whether the very tokens were used within a day in another session, or in none; remember the call."""
        mixed = (call.input_tokens * 1_000_003 + call.output_tokens + number(call.model)) * _MIX & _MASK
        mixed = (mixed ^ mixed >> 29) * _MIX & _MASK
        slot, tag, at = mixed >> 53, (mixed & 0xFFFFFF) << 8 | call.session & 0xFF, int(call.at)
        before = self._tag[slot]
        known = before >> 8 == tag >> 8 and AGAIN_S < at - self._at[slot] < FORGOTTEN_S
        self._tag[slot], self._at[slot] = tag, at
        return known and (not call.session or before & 0xFF != tag & 0xFF)

    def to_state(self) -> State:
        """Return the table: all of it, or what slots hold and which, where most have never been used."""
        (used,) = (self._times != 0).nonzero()
        if len(used) > SPARSE:
            return {"tag": self._tags, "at": self._times}
        return {"slots": used.astype(np.uint16), "tag": self._tags[used], "at": self._times[used]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Vectors":
        """Return the table that `state` describes."""
        vectors = cls()
        if "slots" in state:
            used = state["slots"]
            vectors._tags[used], vectors._times[used] = state["tag"], state["at"]
        else:
            vectors._take_up(state["tag"].copy(), state["at"].copy())
        return vectors


@lru_cache(maxsize=1_024)
def number(model: str) -> int:
    """Return a number for a model."""
    return pseudonym("", model)
