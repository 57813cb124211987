"""Calls under way in LiteLLM's proxy, found again by a mark of ours: the id of a call is whatever its caller says."""

import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spendbrake.actions.gateway.lease import Lease

MARK = "spendbrake_call"
HOLDERS = ("metadata", "litellm_metadata")
"""Where LiteLLM keeps what goes with a request from its hooks to its logs; which one is a matter of the route."""
OWN = "user_api_key"
"""What the proxy itself writes there begins so; a body that is passed through as it is has none, and is left alone."""


@dataclass(slots=True)
class Call:
    """A request under way: whose it is, what its caller is told, and what is held for it.

    Attributes:
        model: As the caller asked for it.
        models: Those it may be answered by, as far as asked about.
    """

    caller: Any
    model: str
    models: set[str]
    headers: dict[str, str]
    lease: Lease | None = None

    def taken(self) -> Lease | None:
        """Return the lease, once."""
        lease, self.lease = self.lease, None
        return lease


class Calls:
    """Calls under way, and those that have ended last, for what is logged after their end.

    Args:
        most: Of each that are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._live: OrderedDict[str, Call] = OrderedDict()
        self._ended: OrderedDict[str, Call] = OrderedDict()

    def begin(self, data: dict[str, Any], call: Call) -> bool:
        """Mark a request; False where it has no place for a mark, so that it cannot be found again."""
        mark = uuid.uuid4().hex
        places = [
            held for name in HOLDERS if isinstance(held := data.get(name), dict) and any(_own(each) for each in held)
        ]
        for held in places:
            held[MARK] = mark
        if places:
            _put(self._live, mark, call, self._most)
        return bool(places)

    def find(self, request: Mapping[str, Any]) -> Call | None:
        """Return the call of a request, or of what is logged of it."""
        for mark in _marks(request):
            call = self._live.get(mark) or self._ended.get(mark)
            if call is not None:
                return call
        return None

    def end(self, request: Mapping[str, Any]) -> None:
        """Nothing more is to come of a request."""
        for mark in _marks(request):
            call = self._live.pop(mark, None)
            if call is not None:
                _put(self._ended, mark, call, self._most)

    def __len__(self) -> int:
        return len(self._live)


def _put(calls: OrderedDict[str, Call], mark: str, call: Call, most: int) -> None:
    calls[mark] = call
    if len(calls) > most:
        calls.popitem(last=False)


def _own(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(OWN)


def _marks(request: Mapping[str, Any]) -> list[str]:
    params = request.get("litellm_params")
    found = []
    for place in (request, params if isinstance(params, Mapping) else {}):
        for name in HOLDERS:
            held = place.get(name)
            mark = held.get(MARK) if isinstance(held, Mapping) else None
            if isinstance(mark, str):
                found.append(mark)
    return found
