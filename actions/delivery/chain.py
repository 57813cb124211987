"""Chain of results: each carries the digest of the one before, so that none can be changed or taken out unseen."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from spendbrake.schemas.action import Action
from spendbrake.schemas.result import Outcome, Result


class Chain:
    """The results of one writer, in order. A writer is one start of one process: its name is never used again."""

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._sequence = 0
        self._previous = ""

    def link(
        self,
        action: Action,
        outcome: Outcome,
        *,
        at: float,
        attempts: int,
        error: str | None = None,
        response: Mapping[str, Any] | None = None,
    ) -> Result:
        """Return the result of an action, the next in the chain; arguments as for `add`."""
        return self.add(
            action.id,
            action.effect,
            action.destination,
            outcome,
            at=at,
            attempts=attempts,
            error=error,
            response=response,
        )

    def add(
        self,
        action: str,
        effect: str,
        destination: str,
        outcome: Outcome,
        *,
        at: float,
        attempts: int,
        error: str | None = None,
        response: Mapping[str, Any] | None = None,
    ) -> Result:
        """Return the next result. All must be published; their order on the wire does not matter."""
        result = Result(
            action=action,
            effect=effect,
            destination=destination,
            outcome=outcome,
            at=at,
            attempts=attempts,
            writer=self._writer,
            sequence=self._sequence,
            previous=self._previous,
            error=error,
            response=response or {},
        )
        linked = replace(result, digest=digest_of(result))
        self._sequence, self._previous = self._sequence + 1, linked.digest
        return linked


def digest_of(result: Result) -> str:
    """Return the SHA-256 over all fields but the digest, hex: sorted keys, no spaces, ASCII."""
    fields = asdict(result)
    del fields["digest"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with a writer's chain at a sequence number.

    Attributes:
        kind: `altered`: its digest is not that of its fields. `forked`: two results under one number. `missing`:
            numbers before this one are not there. `broken`: it does not follow the one before.
    """

    writer: str
    sequence: int
    kind: Literal["altered", "forked", "missing", "broken"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The last result known of a writer. What was cut off after it cannot be seen from the chain itself."""

    writer: str
    sequence: int
    digest: str


def verify(results: Iterable[Result]) -> tuple[list[Problem], list[End]]:
    """Return what is wrong with the chains of all writers, and their open ends.

    Results come in any order, and may come twice: a record that was published again is the same record.
    """
    chains: dict[str, dict[int, list[Result]]] = {}
    for result in results:
        same = chains.setdefault(result.writer, {}).setdefault(result.sequence, [])
        if result not in same:
            same.append(result)
    problems: list[Problem] = []
    ends: list[End] = []
    for writer, chain in sorted(chains.items()):
        problems += _verify_writer(writer, chain)
        last = max(chain)
        ends.append(End(writer=writer, sequence=last, digest=chain[last][0].digest))
    return problems, ends


def _verify_writer(writer: str, chain: Mapping[int, list[Result]]) -> Iterable[Problem]:
    expected, previous = 0, ""
    for sequence in sorted(chain):
        result, *others = chain[sequence]
        if others:
            yield Problem(writer=writer, sequence=sequence, kind="forked", text=f"{1 + len(others)} differ")
        if digest_of(result) != result.digest:
            yield Problem(writer=writer, sequence=sequence, kind="altered", text=f"action {result.action}")
        if sequence != expected:
            gap = f"{expected} to {sequence - 1}"
            yield Problem(writer=writer, sequence=sequence, kind="missing", text=gap)
        elif result.previous != previous:
            yield Problem(writer=writer, sequence=sequence, kind="broken", text=f"follows {result.previous!r}")
        expected, previous = sequence + 1, result.digest
