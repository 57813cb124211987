"""By how much a hard cap can be passed at most, before gateways have heard of it. Arithmetic only.

What is spent between a crossing and the block that a gateway can read is of two kinds: calls that were under way, and
what others begin while the news travels. With leases for every call the first is nothing (money is held at the most a
call may cost) and the second is what goes past the leases.
"""

import math
from dataclasses import dataclass

from spendbrake.schemas.money import NanoUsd

PROMISED_LAG_S = 1.0
"""From event to a decision that gateways can read."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a deployment lets happen at once.

    Attributes:
        in_flight: Calls of one node that may be under way at once without a lease.
        max_call: The most that one of them costs, nano-USD.
        blind_s: Longest time without an owner: a session time-out, and the recovery after it.
    """

    in_flight: int
    max_call: NanoUsd
    blind_s: float

    def bound(self, burn_a_minute: NanoUsd) -> NanoUsd:
        """Return the most that a node with this burn, nano-USD a minute, can spend past its cap.

        Examples:
            >>> Exposure(in_flight=10, max_call=2, blind_s=14.0).bound(600)
            170
        """
        return self.in_flight * self.max_call + math.ceil((PROMISED_LAG_S + self.blind_s) * burn_a_minute / 60)
