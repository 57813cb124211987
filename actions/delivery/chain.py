"""Chain of results: each carries the digest of the one before, so that none can be changed or taken out unseen."""

import hashlib
import json
import math
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
            numbers before this one are not there. `broken`: it does not follow the one before. `cut`: an end that was
            known before is there no longer, or is another.
    """

    writer: str
    sequence: int
    kind: Literal["altered", "forked", "missing", "broken", "cut"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The ends of what is known of a writer.

    What was cut off after the last result cannot be seen from the chain itself: keep its end, and verify against it.

    Attributes:
        first: Number of its first result that is there; above 0 where the log has dropped the oldest.
        sequence: Number of its last; `digest` and `at` are that result's.
    """

    writer: str
    first: int
    sequence: int
    digest: str
    at: float


def verify(results: Iterable[Result], known: Iterable[End] = ()) -> tuple[list[Problem], list[End]]:
    """Return what is wrong with the chains of all writers, and their open ends.

    Results come in any order, and may come twice: a record that was published again is the same record.

    Args:
        known: Ends that an earlier verification has returned.
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
        last = chain[max(chain)][0]
        ends.append(End(writer=writer, first=min(chain), sequence=last.sequence, digest=last.digest, at=last.at))
    oldest = min((same.at for chain in chains.values() for each in chain.values() for same in each), default=-math.inf)
    problems += [problem for end in known for problem in _cut(end, chains.get(end.writer, {}), oldest)]
    return problems, ends


def _verify_writer(writer: str, chain: Mapping[int, list[Result]]) -> Iterable[Problem]:
    first = min(chain)
    # A log drops its oldest records: a chain may begin anywhere, but not skip.
    expected, previous = first, chain[first][0].previous if first else ""
    for sequence in sorted(chain):
        result, *others = chain[sequence]
        if others:
            yield Problem(writer=writer, sequence=sequence, kind="forked", text=f"{1 + len(others)} differ")
        if not _is_whole(result):
            yield Problem(writer=writer, sequence=sequence, kind="altered", text=f"action {result.action}")
        if sequence != expected:
            gap = f"{expected} to {sequence - 1}"
            yield Problem(writer=writer, sequence=sequence, kind="missing", text=gap)
        elif result.previous != previous:
            yield Problem(writer=writer, sequence=sequence, kind="broken", text=f"follows {result.previous!r}")
        expected, previous = sequence + 1, result.digest


def _is_whole(result: Result) -> bool:
    try:
        return digest_of(result) == result.digest
    except ValueError:  # of a number that is none there is no digest, and so it was never given one
        return False


def _cut(end: End, chain: Mapping[int, list[Result]], oldest: float) -> Iterable[Problem]:
    if any(result.digest == end.digest for result in chain.get(end.sequence, ())):
        return
    if (chain and min(chain) > end.sequence) or (not chain and end.at < oldest):
        return  # the log has dropped it, and all before it
    text = f"{end.digest[:12]} was here before"
    yield Problem(writer=end.writer, sequence=end.sequence, kind="cut", text=text)
