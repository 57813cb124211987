"""What goes wrong: one fault a class. Each strikes a scene and sees to it that what it takes away comes back."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.scene import MOST, SESSION_S, Scene
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
    def strike(self, scene: Scene, chance: random.Random) -> bool:
        """Let it happen; False where there is nothing to strike, or nothing has felt it."""


@dataclass(frozen=True)
class Kill(Fault):
    """A worker dies at once (SIGKILL) and is started again."""

    kind = "kill -9"

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        kind = chance.choice(ALL)
        victims = scene.awake(kind)
        if victims:
            scene.kill(kind, chance.choice(victims))
        return bool(victims)


@dataclass(frozen=True)
class Freeze(Fault):
    """A worker stands still (SIGSTOP) for less than a session of its group: it stays a member."""

    kind = "freeze"

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        victims = scene.awake(chance.choice(ALL))
        if victims:
            scene.freeze(chance.choice(victims), chance.uniform(0.5, SESSION_S * 0.7))
        return bool(victims)


@dataclass(frozen=True)
class Evict(Fault):
    """A worker stands still until others have its partitions, and then goes on with what it had in mind."""

    kind = "freeze past the session"

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        victims = scene.awake(chance.choice(ALL))
        if victims:
            scene.freeze(chance.choice(victims), SESSION_S + chance.uniform(2, 8))
        return bool(victims)


@dataclass(frozen=True)
class Join(Fault):
    """One more worker: partitions move to it."""

    kind = "join"

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        kind = chance.choice(ALL)
        if len(scene.crew[kind]) >= MOST[kind]:
            return False
        scene.add(kind)
        return True


@dataclass(frozen=True)
class Leave(Fault):
    """One worker less, in good order: it stores, commits and leaves."""

    kind = "leave"

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        kind = chance.choice(ALL)
        victims = scene.awake(kind)
        if len(victims) < 2:
            return False
        scene.dismiss(kind, chance.choice(victims))
        return True


@dataclass(frozen=True)
class RestartBroker(Fault):
    """The broker goes, by a power cut or in good order, and comes back with its data."""

    kind = "broker restart"

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        kafka = scene.servers.kafka
        (kafka.kill if chance.random() < 0.5 else kafka.stop)()
        scene.turn(chance.uniform(0, 4))
        kafka.start()
        return True


@dataclass(frozen=True)
class TakeValkey(Fault):
    """Valkey is gone for some seconds and comes back with nothing."""

    kind = "valkey away"

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        valkey = scene.servers.valkey
        valkey.kill()
        scene.turn(chance.uniform(1, 6))
        valkey.start()
        return True


@dataclass(frozen=True)
class EmptyValkey(Fault):
    """Valkey loses every key and goes on."""

    kind = "valkey emptied"

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        scene.servers.valkey.empty()
        return True


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

    def strike(self, scene: Scene, chance: random.Random) -> bool:
        server = scene.slack if self.name == "slack" else scene.webhook
        before = server.played[self.answer]
        server.faults += [self.answer] * chance.randint(1, 3)
        scene.turn(0.0)
        for _ in range(int(PLAYED_WITHIN_S / 0.5)):
            if server.played[self.answer] > before:
                return True
            scene.turn(0.5)
        server.faults.clear()
        return False


RECEIVERS: Sequence[Fault] = [
    Receiver(name, answer) for name in ("slack", "webhook") for answer in ("500", "429", "hang", "drop", "refuse")
]
PROCESSES: Sequence[Fault] = [Kill(), Freeze(), Evict(), Join(), Leave()]
SERVERS: Sequence[Fault] = [RestartBroker(), TakeValkey(), EmptyValkey()]


def storm(chance: random.Random, count: int) -> list[Fault]:
    """Return so many faults in some order: one of each kind of process and server first, then what chance brings."""
    deck = [*PROCESSES, *SERVERS, chance.choice(RECEIVERS), chance.choice(RECEIVERS)]
    chance.shuffle(deck)
    while len(deck) < count:
        deck.append(chance.choice(chance.choices((PROCESSES, SERVERS, RECEIVERS), (0.6, 0.15, 0.25))[0]))
    return deck[:count]
