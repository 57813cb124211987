"""The gate before every operation: whose token this is, and whether its roles allow what is asked."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import structlog
from starlette.requests import Request
from starlette.responses import Response

from spendbrake.schemas.control import AccessToken
from spendbrake.streams.api.access.hop import HOP, genuine
from spendbrake.streams.api.access.tokens import (
    ANYONE,
    PEER,
    SETTINGS_ID,
    Principal,
    Scope,
    principal_of,
    settings_principal,
)
from spendbrake.streams.api.pages import problem
from spendbrake.streams.metrics import Metrics

LOG = structlog.get_logger("spendbrake.access")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
HERE = re.compile(r"https?://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]+)?$")
"""Origin of a page of this machine."""
REALM = 'Bearer realm="spendbrake"'
MAX_HEADER = 200


class NoTokens(ValueError):
    """The API would listen to others, and nobody holds a token."""


class Gate:
    """Lets requests pass or refuses them.

    On loopback, while no token was ever made, everybody is let in: whoever is on the machine could read the data
    anyway. From the first token on all need one, also after it was revoked.

    Args:
        host: Address that is listened on.
        tokens: Returns all tokens by id, revoked ones too.
        clock: Wall clock, epoch seconds.
        admin_token: An admin's token besides those that were made.
        secrets: Of the deployment: they vouch for requests of its own processes.

    Raises:
        NoTokens: others could reach the address and there is no token.
    """

    def __init__(
        self,
        host: str,
        tokens: Callable[[], Mapping[str, AccessToken]],
        clock: Callable[[], float],
        metrics: Metrics,
        *,
        admin_token: str | None = None,
        secrets: Sequence[bytes] = (),
    ) -> None:
        self._local = host in LOOPBACK
        if not self._local and not tokens() and admin_token is None:
            raise NoTokens(
                f"{host} can be reached by others, and there is no API token: make one with `spendbrake token create "
                "--role admin`, or set SPENDBRAKE_ADMIN_TOKEN"
            )
        self._tokens, self._clock, self._metrics = tokens, clock, metrics
        self._admin_token, self._secrets = admin_token, secrets

    @property
    def open(self) -> bool:
        """Whether everybody is let in."""
        return self._local and self._admin_token is None and not self._tokens()

    def principal(self, request: Request) -> Principal | None:
        """Return who asks; None for a stranger."""
        if self.open:
            return ANYONE if _from_here(request) else None
        hop = request.headers.get(HOP)
        if hop is not None and genuine(hop, self._secrets, request.method, target_of(request), self._clock()):
            return PEER
        # Of two a proxy before us may have looked at the other one.
        said = request.headers.getlist("authorization")
        return self._holder(bearer(said[0])) if len(said) == 1 else None

    def refuses(self, authorization: str, needs: Scope) -> Literal[401, 403] | None:
        """Return the status that a caller over another protocol than HTTP is refused with; None lets it in."""
        who = ANYONE if self.open else self._holder(bearer(authorization))
        if who is not None and needs in who.scopes:
            return None
        self._metrics.count("refused", "unknown_token" if who is None else "missing_role")
        return 401 if who is None else 403

    def _holder(self, offered: str | None) -> Principal | None:
        if offered is None:
            return None
        return settings_principal(offered, self._admin_token) or principal_of(offered, self._tokens(), self._clock())

    def refusal(self, request: Request, needs: Scope | None) -> Response | None:
        """Return why a request may not pass; None when it may. Who asks is in `request.state.principal`."""
        who = request.state.principal = self.principal(request)
        if needs is None or (who is not None and needs in who.scopes):
            return None
        self._metrics.count("refused", "unknown_token" if who is None else "missing_role")
        if who is None:
            LOG.info(
                "a request without a good token", path=request.url.path, offered="authorization" in request.headers
            )
            answer = problem(401, "unauthorized", "an API token is needed: Authorization: Bearer sb_...")
            answer.headers["www-authenticate"] = REALM
            return answer
        LOG.info("a token without the role", path=request.url.path, holder=who.id, needs=needs)
        return problem(403, "missing_role", f"token {who.id} may not do this: it takes the scope {needs}")


def _from_here(request: Request) -> bool:
    """Tell whether a request is this machine's own: no page of another site has a browser make it.

    Such a page may have our address under a name of its own, or send what needs no leave of ours (`Origin`). Its
    pictures and frames name no origin, but browsers say whose they are (`Sec-Fetch-*`); a link that somebody follows is
    their own request.
    """
    headers = request.headers
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return (
        request.url.hostname in LOOPBACK
        and (origin is None or HERE.match(origin) is not None)
        and (site != "cross-site" or (followed and request.method == "GET"))
    )


def may(request: Request, scope: Scope) -> bool:
    """Tell whether who asks has a scope; where no gate stands, everybody has all."""
    who: Principal | None = getattr(request.state, "principal", ANYONE)
    return who is not None and scope in who.scopes


def asker(request: Request) -> str:
    """Return the id of who asks."""
    who: Principal | None = getattr(request.state, "principal", ANYONE)
    return ANYONE.id if who is None else who.id


def person(request: Request) -> str:
    """Return who asks by the name of the token: of two tokens of one name one person is the holder."""
    who: Principal | None = getattr(request.state, "principal", ANYONE)
    return asker(request) if who is None or who.id in (ANYONE.id, PEER.id, SETTINGS_ID) else who.name


def bearer(authorization: str) -> str | None:
    """Return the token in the value of a header `Authorization`."""
    scheme, _, offered = authorization.partition(" ")
    offered = offered.strip()
    return offered if scheme.lower() == "bearer" and offered and len(offered) <= MAX_HEADER else None


def target_of(request: Request) -> str:
    """Return path and query as they were sent."""
    raw = request.scope.get("raw_path") or request.url.path.encode()
    query = request.scope.get("query_string", b"")
    return (raw + (b"?" + query if query else b"")).decode("latin-1")
