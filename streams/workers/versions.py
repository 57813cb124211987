"""Versions of policy, owners and topics, as the control topic has them: what a worker must know before it joins."""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import orjson
import structlog

from spendbrake.schemas.control import (
    AccessToken,
    Acknowledgement,
    ControlMessage,
    Owner,
    OwnersVersion,
    PolicyVersion,
    Silence,
    StoreSince,
    TopicRegistration,
)
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.wire.avro import decode, encode, schema_id_of
from spendbrake.streams.engine.rules import RuleBook
from spendbrake.streams.transport.clients.control import ControlLog, ControlUnavailable, KeyValue

LOG = structlog.get_logger("spendbrake.versions")
RETRY_S = 0.5
LEAD_S = 30.0
"""A policy comes into force this long after it was published, at the least: every worker has read it by then."""
OWNERS_LEAD_S = 660.0
"""Owners and prices hold from this long after publication: no event that is on its way may be resolved twice."""

KINDS: dict[int, type[ControlMessage]] = {
    6: PolicyVersion,
    7: OwnersVersion,
    8: TopicRegistration,
    11: AccessToken,
    12: Silence,
    13: Acknowledgement,
    18: StoreSince,
}
SILENCE, ACKNOWLEDGEMENT = "silence", "acknowledgement"
S = TypeVar("S", Silence, Acknowledgement)
M = TypeVar("M", PolicyVersion, OwnersVersion, TopicRegistration)


KEPT = 50_000
"""Acknowledgements and silences kept, of each: the latest. An alert that was taken on before all of them is told again.

Between two rounds of `outlived` nothing else bounds what a busy deployment leaves behind."""
OUTLIVED_S = 100 * 86_400.0
"""Age at which an acknowledgement, or a silence that has ended, is of no alert any more: those end with their month."""


class NoPolicy(LookupError):
    """Nothing was published yet."""


class Versions:
    """All control messages that were read.

    Attributes:
        book: The compiled versions; it grows while the topic is followed.
        read_at: When the topic was last read to its end.
        word: Counts what people have said of alerts: silences and acknowledgements.
        tokens: API tokens by id, revoked ones too.
        store_since: From when on the Redis of the gateways has its contents; what was written before is gone.
    """

    def __init__(self, partitions: int, clock: Callable[[], float]) -> None:
        self.book = RuleBook(partitions)
        self._clock = clock
        self.read_at = float("-inf")
        self.policies: dict[int, PolicyVersion] = {}
        self.owners: dict[int, OwnersVersion] = {}
        self.topics: dict[str, TopicRegistration] = {}
        self.tokens: dict[str, AccessToken] = {}
        self.silences: dict[str, Silence] = {}
        self.acknowledged: dict[str, Acknowledgement] = {}
        self.word = 0
        self.store_since = float("-inf")

    def age_s(self) -> float:
        """Return the seconds since the topic was last read to its end."""
        return self._clock() - self.read_at

    def take(self, records: Iterable[KeyValue]) -> bool:
        """Take records in; tell whether engines must hear of any at once."""
        news = False
        for key, value in records:
            if value is not None:
                news |= self._one(key, value)
            else:
                self._forget(key.decode(errors="replace"))
        self.read_at = self._clock()
        return news

    def _one(self, key: bytes, value: bytes) -> bool:
        kind = KINDS.get(schema_id_of(value))
        if kind is None:
            LOG.error("control record of an unknown kind is passed over", key=key.decode(errors="replace"))
            return False
        message = decode(kind, value)
        # Of two that were published under one number at the same moment the first holds, for all who read.
        if isinstance(message, PolicyVersion):
            self.policies.setdefault(message.version, message)
            return self.book.add(message)
        if isinstance(message, OwnersVersion):
            self.owners.setdefault(message.version, message)
            return self.book.owners.add(message)
        if isinstance(message, AccessToken):
            self.tokens[message.id] = message
        elif isinstance(message, Silence):
            _keep(self.silences, message.id, message)
            self.word += 1
        elif isinstance(message, Acknowledgement):
            _keep(self.acknowledged, message.trouble, message)
            self.word += 1
        elif isinstance(message, StoreSince):
            self.store_since = message.since
            return True
        else:
            self.topics[message.name] = message
        return False

    def _forget(self, key: str) -> None:
        kind, _, name = key.partition("/")
        if kind == ACKNOWLEDGEMENT:
            self.acknowledged.pop(name, None)
        elif kind == SILENCE:
            self.silences.pop(name, None)

    def outlived(self, now: float) -> list[bytes]:
        """Return the keys of what people have said of alerts that are long over: to be removed from the topic."""
        before = now - OUTLIVED_S
        said: list[ControlMessage] = [each for each in self.acknowledged.values() if each.at < before]
        said += [each for each in self.silences.values() if each.ends_at < before]
        return [control_record(each)[0] for each in said]

    async def follow(self, log: ControlLog, changed: Callable[[], None]) -> None:
        """Take in what comes, for ever; a topic that cannot be read ages.

        Args:
            changed: Called after what engines must hear of at once.
        """
        silent = False
        while True:
            try:
                records = await asyncio.to_thread(log.follow, 1.0)
            except ControlUnavailable as error:
                if not silent:
                    LOG.warning("the control topic cannot be read", error=str(error), age_s=round(self.age_s(), 1))
                silent = True
                await asyncio.sleep(RETRY_S)
                continue
            silent = False
            if self.take(records):
                changed()

    async def until_read(self, within_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Return once the topic was read within the last `within_s`: what has changed since may not be missed."""
        if self.age_s() <= within_s:
            return
        LOG.error("paused: the control topic could not be read", for_s=round(self.age_s(), 1))
        while self.age_s() > within_s:
            await sleep(RETRY_S)
        LOG.warning("goes on: the control topic is read again")

    def holds(self, message: PolicyVersion | OwnersVersion) -> bool:
        """Tell whether it is this message that holds under its number."""
        known = self.policies if isinstance(message, PolicyVersion) else self.owners
        return known.get(message.version) == message

    def next_policy(self, document: dict[str, object], now: float, at: float | None) -> PolicyVersion:
        """Return the next policy version, in force from `at` on, or as soon as it may be.

        Raises:
            ValueError: `at` is too soon, or no time at all.
        """
        PolicyFile.model_validate(document)
        if at is not None and not math.isfinite(at):
            raise ValueError(f"in force from {at!r}: epoch seconds are wanted")
        earliest = now + LEAD_S
        if at is not None and at < earliest and self.policies:
            raise ValueError(f"a new version can be in force {LEAD_S:g} s from now at the earliest")
        digest = hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
        number = max(self.policies, default=0) + 1
        valid_from = 0.0 if number == 1 else (earliest if at is None else at)
        return PolicyVersion(
            version=number, valid_from=valid_from, published_at=now, digest=digest, document=dict(document)
        )

    def next_owners(self, owners: Iterable[Owner], now: float, *, counted: bool) -> OwnersVersion:
        """Return the next version of owners; the first holds from the beginning of time.

        Args:
            counted: Whether calls may have been counted already. Then the first is as any other: a correction, or a
                worker that comes again, would find the owner of such a call to be another than it was counted to.
        """
        number = max(self.owners, default=0) + 1
        valid_from = now + OWNERS_LEAD_S if counted or number > 1 else 0.0
        return OwnersVersion(version=number, valid_from=valid_from, published_at=now, owners=tuple(owners))


def _keep(said: dict[str, S], name: str, message: S) -> None:
    """Take the latest word in; the oldest goes when there are too many."""
    said.pop(name, None)
    said[name] = message
    if len(said) > KEPT:
        del said[next(iter(said))]


def control_record(message: ControlMessage) -> tuple[bytes, bytes]:
    """Return key and value of a control message.

    The key of a version tells two of one number apart: compaction must not let the later one take the place of the
    one that workers have taken in.
    """
    if isinstance(message, PolicyVersion | OwnersVersion):
        kind, value = "policy" if isinstance(message, PolicyVersion) else "owners", encode(message)
        return f"{kind}/{message.version}/{hashlib.sha256(value).hexdigest()[:16]}".encode(), value
    if isinstance(message, AccessToken):
        return f"token/{message.id}".encode(), encode(message)
    if isinstance(message, Silence):
        return f"{SILENCE}/{message.id}".encode(), encode(message)
    if isinstance(message, Acknowledgement):
        return f"{ACKNOWLEDGEMENT}/{message.trouble}".encode(), encode(message)
    if isinstance(message, StoreSince):
        return b"store", encode(message)
    return f"topic/{message.name}".encode(), encode(message)
