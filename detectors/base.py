"""What a detector is, and the bytes its state is kept as. Detectors measure and explain; they decide nothing."""

import json
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from spendbrake.detectors.features import Features, Gap
from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.policy import Part
from spendbrake.schemas.reading import NewSeries, SessionReading

Array = NDArray[Any]
State = dict[str, Any]
"""JSON-able values and numpy arrays, by name; nested at will."""

MAGIC = b"SBD1"
_DTYPES = {"f4": "<f4", "f8": "<f8", "u1": "|u1", "i8": "<i8"}
_ARRAY = "$array"


class Params(Part):
    """Base of a detector's parameters: immutable, unknown names refused, `enabled: false` switches it off."""

    enabled: bool = True


P = TypeVar("P", bound=Params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a detector saw, before anybody decides whether it is worth a page.

    Attributes:
        excess: Money above what was expected, nano-USD: over the last `span_s` seconds for buckets, of the
            subject from its beginning for facts.
        step: What this reading alone adds to the excess of an incident that is under way; None when `excess`
            is the subject's running total and replaces its earlier value.
        subject: What the evidence is about, when a node has several: a session, a series.
        key: API key that carries it, where the reading tells.
        text: One sentence for a person on call, with money and what is usual.
        holds_s: Seconds for which it stands without new evidence; None = the incident's own quiet time.
        known: The fact itself is the offence (a model nobody approved): it needs no unusual amount to be told.
        details: JSON-ready figures for the finding's evidence.
    """

    excess: NanoUsd
    text: str
    step: NanoUsd | None = None
    span_s: float = 0.0
    subject: str = ""
    key: str | None = None
    holds_s: float | None = None
    known: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for a team at some moment.

    Attributes:
        usd_h: Mean burn over days, USD an hour; 0.0 while nothing is known.
        alarms: Its own recent alarms, a count that decays.
        age_s: Seconds since its first bucket.
    """

    usd_h: float
    alarms: float = 0.0
    age_s: float = 0.0


class Detector(ABC, Generic[P]):
    """Common to all detectors.

    Attributes:
        name: Unique in the catalog; the key under `detection.params` in the policy file.
        family: Detectors that see one kind of trouble; a node has one incident a family at a time.
        parameters: Its `Params` class.
        shaped_by: Names of the parameters its state depends on; a state kept under other values is left behind
            and the detector learns afresh.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    parameters: ClassVar[type[Params]]
    shaped_by: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: P) -> None:
        self.params = params

    @abstractmethod
    def to_state(self) -> State:
        """Return all it has learned; arrays may alias its own (they are copied by who keeps them)."""

    @classmethod
    @abstractmethod
    def from_state(cls, params: P, state: Mapping[str, Any]) -> Self:
        """Return a detector that scores, from the next reading on, bit by bit like the one that gave `state`."""


class BucketDetector(Detector[P]):
    """River's contract on closed buckets: `score_one` never learns, `learn_one` never scores.

    Scores are finite, high is unusual, and comparable within one series only: `calibration.Tail` makes them
    comparable. A detector of minutes is given only buckets that closed a minute (`Features.minute` is set).

    Attributes:
        every_s: Width of what it reads, seconds.
        on_series: Whether it also runs on a team's heaviest projects, keys and models.
    """

    every_s: ClassVar[Literal[10, 60]] = 10
    on_series: ClassVar[bool] = False

    @abstractmethod
    def score_one(self, x: Features) -> float:
        """Return how unusual `x` is, raw; 0.0 before anything was learned."""

    @abstractmethod
    def learn_one(self, x: Features) -> None:
        """Take `x` for usual."""

    def learn_empty(self, gap: Gap) -> None:
        """Learn the empty buckets before the next reading, in one step whatever their number."""
        return

    @abstractmethod
    def explain(self, x: Features) -> Evidence:
        """Return what is unusual about `x`; called only for buckets that stand out."""


class FactDetector(Detector[P]):
    """Reads single facts; what it returns passes the gate's money floors before anybody hears of it."""

    @abstractmethod
    def read(self, reading: NewSeries | SessionReading, usual: Usual) -> Evidence | None:
        """Return evidence, or None when the reading is not its business or in order.

        Args:
            reading: The fact.
            usual: The team's habits at that moment.
        """


def frozen32(values: Any) -> NDArray[np.float32]:
    """Return a float32 copy of `values` that nobody else holds."""
    return np.array(values, dtype=np.float32)


def pack(state: State) -> bytes:
    """Return `state` (its arrays of float32, float64, uint8 or int64) as bytes; no pickle: no log is trusted with code.

    Floats come back bit by bit: JSON carries their shortest exact form. NaN and infinities are refused.
    """
    arrays: list[bytes] = []

    def reduce(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            code = value.dtype.kind + str(value.dtype.itemsize)
            arrays.append(np.ascontiguousarray(value, dtype=_DTYPES[code]).tobytes())
            return {_ARRAY: code, "shape": list(value.shape)}
        raise TypeError(f"detector state holds a {type(value).__name__}, which has no form in bytes")

    head = json.dumps(state, default=reduce, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((MAGIC, struct.pack("<I", len(head)), head, *arrays))


def unpack(data: bytes) -> State:
    """Return the state that `data` holds; its arrays are copies.

    Raises:
        ValueError: not such bytes, or cut short.
    """
    if data[:4] != MAGIC or len(data) < 8:
        raise ValueError(f"not a detector state: begins with {data[:4]!r}")
    (length,) = struct.unpack_from("<I", data, 4)
    at = 8 + length

    def restore(value: dict[str, Any]) -> Any:
        nonlocal at
        if _ARRAY not in value:
            return value
        dtype, shape = np.dtype(_DTYPES[value[_ARRAY]]), tuple(value["shape"])
        end = at + dtype.itemsize * math.prod(shape)
        if not at <= end <= len(data):
            raise ValueError(f"detector state is cut short: {len(data)} bytes, {end} wanted")
        array = np.frombuffer(data[at:end], dtype=dtype).reshape(shape).copy()
        at = end
        return array

    try:
        # Objects close in the order in which their arrays were written: depth first, keys in order.
        state = json.loads(data[8 : 8 + length], object_hook=restore)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"not a detector state: {error}") from error
    if not isinstance(state, dict) or at != len(data):
        raise ValueError(f"not a detector state: {len(data)} bytes, of which {at} make sense")
    return state
