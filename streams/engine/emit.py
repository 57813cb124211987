"""What a step sends: findings, actions, forwards and dead letters as records. It decides nothing."""

from collections.abc import Iterable

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import KIND_HEADER, ORIGIN_HEADER
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import ACTIONS, FINDINGS, STANDING, USAGE, USAGE_DLQ
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.engine.outcome import Batch, Headers, Outcome, OutRecord

REASON_HEADER = "sb-reason"
FIELD_HEADER = "sb-field"
MESSAGE_HEADER = "sb-message"
STAGE_HEADER = "sb-stage"


def standing_record(action: Action, partition: int, now: float) -> OutRecord:
    """Return what is told again as a record of the partition of the log that owns its node."""
    return OutRecord(STANDING.name, action.node.encode(), encode(action), now, partition)


class Emitter:
    """Fills one outcome.

    Args:
        batch: Where the records come from that are forwarded or refused.
        topic: Logical name of the batch's topic.
        secret: Signs forwards.
    """

    def __init__(self, outcome: Outcome, batch: Batch, topic: str, secret: bytes) -> None:
        self.outcome, self.batch, self.topic, self.secret = outcome, batch, topic, secret

    def count(self, metric: str, label: str = "", n: int = 1) -> None:
        """Count in the outcome."""
        if n:
            self.outcome.counters[metric, label] += n

    def finding(self, finding: Finding) -> None:
        """Publish a finding."""
        self.count("findings", finding.detector)
        self._send(FINDINGS.name, finding.node.encode(), encode(finding), finding.time)

    def actions(self, actions: Iterable[Action], partition: int) -> None:
        """Publish actions in the order that they were decided in."""
        for action in actions:
            self.action(action, partition)

    def action(self, action: Action, partition: int) -> None:
        """Publish an action into the partition of the log that owns its node."""
        self.count("actions", action.effect)
        self._send(ACTIONS.name, action.node.encode(), encode(action), action.time, partition)

    def dead(self, place: int, now: float, stage: str, reason: str, field: str = "", message: str = "") -> None:
        """Put a record that cannot be counted among the dead letters, as it was received."""
        self.count("dead_letters", reason)
        about = ((STAGE_HEADER, stage), (REASON_HEADER, reason), (FIELD_HEADER, field), (MESSAGE_HEADER, message))
        ours = tuple((name, text.encode()) for name, text in about if text)
        theirs = tuple((name, value) for name, value in self.batch.headers[place] if not name.startswith("sb-"))
        claimed = tuple((f"was-{name}", value) for name, value in self.batch.headers[place] if name == KIND_HEADER)
        headers = (*theirs, *claimed, *ours, (ORIGIN_HEADER, self._origin(place).encode()))
        key, value = self.batch.keys[place], self.batch.values[place]
        self._send(USAGE_DLQ.name, key, value, now, partition=self.batch.partition, headers=headers)

    def forward(self, place: int, now: float, team: str, home: int) -> None:
        """Send a record, as it was received, to the partition of its team."""
        self.count("forwards")
        key, value = team.encode(), self.batch.values[place]
        theirs = tuple((name, v) for name, v in self.batch.headers[place] if not name.startswith("sb-"))
        sealed = seal("forward", USAGE.name, key, value, self.secret, self._origin(place))
        self._send(USAGE.name, key, value, now, partition=home, headers=(*theirs, *sealed))

    def _origin(self, place: int) -> str:
        return f"{self.topic}/{self.batch.partition}/{self.batch.offsets[place]}"

    def _send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        at: float,
        partition: int | None = None,
        headers: Headers = (),
    ) -> None:
        self.outcome.records.append(OutRecord(topic, key, value, at, partition, headers))
