"""What goes wrong: one fault a class. Each strikes a scene and sees to it that what it takes away comes back."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.scene import MOST, SESSION_S, Scene
from kafka.deployment import Process
from servers.receivers import Fault as Answer

WITH_STATE = ("burn", "burn", "burn", "parents")
ALL = (*WITH_STATE, "limits", "slack", "webhook")
"""The engine's workers more often than others: they have most to lose."""
PLAYED_WITHIN_S = 8.0


@dataclass(frozen=True)
class Fault(ABC):
    """One kind of trouble."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """Its name in the report."""

    @abstractmethod
    def strike(self, scene: Scene, chance: random.Random) -> str:
        """Let it happen, and return what it has struck; empty where there was nothing, or nothing has felt it."""


@dataclass(frozen=True)
class Kill(Fault):
    """A worker dies at once (SIGKILL) and is started again."""

    kind = "kill -9"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        kind = chance.choice(ALL)
        victim = _one(scene.awake(kind), chance)
        if victim is not None:
            scene.kill(kind, victim)
        return _name(victim)


@dataclass(frozen=True)
class Freeze(Fault):
    """A worker stands still (SIGSTOP) for less than a session of its group: it stays a member."""

    kind = "freeze"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        victim = _one(scene.awake(chance.choice(ALL)), chance)
        if victim is not None:
            scene.freeze(victim, chance.uniform(0.5, SESSION_S * 0.7))
        return _name(victim)


@dataclass(frozen=True)
class Evict(Fault):
    """A worker stands still until others have its partitions, and then goes on with what it had in mind."""

    kind = "freeze past the session"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        victim = _one(scene.awake(chance.choice(ALL)), chance)
        if victim is not None:
            scene.freeze(victim, SESSION_S + chance.uniform(2, 8))
        return _name(victim)


@dataclass(frozen=True)
class Join(Fault):
    """One more worker: partitions move to it."""

    kind = "join"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        kind = chance.choice(ALL)
        return scene.add(kind).name if len(scene.crew[kind]) < MOST[kind] else ""


@dataclass(frozen=True)
class Leave(Fault):
    """One worker less, in good order: it stores, commits and leaves."""

    kind = "leave"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        kind = chance.choice(ALL)
        victim = _one(scene.awake(kind), chance) if len(scene.awake(kind)) > 1 else None
        if victim is not None:
            scene.dismiss(kind, victim)
        return _name(victim)


def _one(workers: Sequence[Process], chance: random.Random) -> Process | None:
    return chance.choice(workers) if workers else None


def _name(worker: Process | None) -> str:
    return "" if worker is None else worker.name


@dataclass(frozen=True)
class RestartBroker(Fault):
    """The broker goes, by a power cut or in good order, and comes back with its data."""

    kind = "broker restart"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        kafka = scene.servers.kafka
        how = chance.choice(("killed", "stopped"))
        (kafka.kill if how == "killed" else kafka.stop)()
        scene.turn(chance.uniform(0, 4))
        kafka.start()
        return how


@dataclass(frozen=True)
class TakeValkey(Fault):
    """Valkey is gone for some seconds and comes back with nothing."""

    kind = "valkey away"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        valkey = scene.servers.valkey
        scene.losses += 1
        valkey.kill()
        scene.turn(away_s := chance.uniform(1, 6))
        valkey.start()
        return f"for {away_s:.0f} s"


@dataclass(frozen=True)
class EmptyValkey(Fault):
    """Valkey loses every key and goes on."""

    kind = "valkey emptied"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        scene.losses += 1
        scene.servers.valkey.empty()
        return "all keys"


@dataclass(frozen=True)
class Receiver(Fault):
    """A receiver answers a few calls badly.

    Attributes:
        name: `slack` or `webhook`.
        answer: `500`, `429` (with Retry-After), `hang`, `drop` or `refuse`; see servers/receivers.py.
    """

    name: str
    answer: Answer

    @property
    def kind(self) -> str:
        return f"{self.name} {self.answer}"

    def strike(self, scene: Scene, chance: random.Random) -> str:
        server = scene.slack if self.name == "slack" else scene.webhook
        before, times = server.played[self.answer], chance.randint(1, 3)
        server.faults += [self.answer] * times
        scene.turn(0.0)
        for _ in range(int(PLAYED_WITHIN_S / 0.5)):
            if server.played[self.answer] > before:
                return f"{times} times"
            scene.turn(0.5)
        server.faults.clear()
        return ""


RECEIVERS: Sequence[Fault] = [
    Receiver(name, answer) for name in ("slack", "webhook") for answer in ("500", "429", "hang", "drop", "refuse")
]
PROCESSES: Sequence[Fault] = [Kill(), Freeze(), Evict(), Join(), Leave()]
SERVERS: Sequence[Fault] = [RestartBroker(), TakeValkey(), EmptyValkey()]


def storm(chance: random.Random) -> Iterator[Fault]:
    """Yield faults for ever: each kind of process and server once, two of receivers, then what chance brings."""
    deck = [*PROCESSES, *SERVERS, chance.choice(RECEIVERS), chance.choice(RECEIVERS)]
    chance.shuffle(deck)
    yield from deck
    while True:
        yield chance.choice(chance.choices((PROCESSES, SERVERS, RECEIVERS), (0.6, 0.15, 0.25))[0])
