"""API tokens: what they look like, what is kept of them, and what their roles allow. Pure: no clock, no log.

A token is `sb_<id>_<secret>`; the secret is 32 random bytes, so one keyed hash is enough: there is nothing to guess.
"""

import hashlib
import hmac
import re
import secrets as random_source
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from spendbrake.schemas.control import AccessToken

Scope: TypeAlias = Literal["ingest", "check", "read", "operate", "approve_finance", "approve_engineering", "tokens"]

ROLES: Mapping[str, frozenset[Scope]] = {
    "reader": frozenset({"read"}),
    "operator": frozenset({"read", "operate"}),
    "finance": frozenset({"read", "approve_finance"}),
    "engineering": frozenset({"read", "approve_engineering"}),
    # An admin hands tokens out and approves nothing: two people stay two people.
    "admin": frozenset({"read", "operate", "tokens"}),
    "ingest": frozenset({"ingest"}),
    "check": frozenset({"check"}),
}
"""What each role may do. Two are for machines: producers (`ingest`) and gateways (`check`) read nothing."""

FORM = re.compile(r"sb_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
ID_BYTES, SECRET_BYTES, SALT_BYTES = 4, 32, 16
NAME_CHARS = 100
LONGEST_S = 100 * 365 * 86_400.0
"""Furthest end of a token; one without an end is another matter."""
SETTINGS_ID = "settings"
"""Id of the admin's token that the settings hold."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        id: Of the token; `peer` for another process of the deployment, `anyone` where no token is needed.
    """

    id: str
    name: str
    scopes: frozenset[Scope]


ANYONE = Principal("anyone", "anyone on this machine", frozenset().union(*ROLES.values()))
PEER = Principal("peer", "another process of the deployment", frozenset({"read"}))


def mint(
    name: str, roles: Iterable[str], *, by: str, now: float, expires_at: float | None = None
) -> tuple[str, AccessToken]:
    """Return a new token, to be shown once, and what is kept of it.

    Raises:
        ValueError: a name, role or time that cannot be.
    """
    held = tuple(sorted(set(roles)))
    unknown = [role for role in held if role not in ROLES]
    if unknown or not held:
        raise ValueError(f"roles: one or more of {', '.join(ROLES)}, got {', '.join(unknown) or 'none'}")
    if not name.strip() or len(name) > NAME_CHARS or not name.isprintable():
        raise ValueError(f"name: 1 to {NAME_CHARS} printable characters, got {name!r}")
    if expires_at is not None and not now < expires_at <= now + LONGEST_S:
        raise ValueError(f"expires_at: in the future, within a hundred years, got {expires_at!r}")
    number, secret = random_source.token_hex(ID_BYTES), random_source.token_urlsafe(SECRET_BYTES)
    salt = random_source.token_hex(SALT_BYTES)
    kept = AccessToken(
        id=number,
        name=name,
        roles=held,
        salt=salt,
        digest=digest_of(secret, salt),
        created_at=now,
        created_by=by,
        expires_at=expires_at,
    )
    return f"sb_{number}_{secret}", kept


def revoked(token: AccessToken, *, by: str, now: float) -> AccessToken:
    """Return a token that is refused from now on; one that is revoked already stays as it is."""
    return token if token.revoked_at is not None else replace(token, revoked_at=now, revoked_by=by)


def digest_of(secret: str, salt: str) -> str:
    """Return what is kept of a secret, hex."""
    return hmac.new(bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()


_NOBODY = AccessToken(
    id="", name="", roles=(), salt="00" * SALT_BYTES, digest="00" * 32, created_at=0.0, created_by="", revoked_at=0.0
)
"""Compared with where the id is unknown, so that the time of a refusal does not tell which ids there are."""


def principal_of(offered: str, tokens: Mapping[str, AccessToken], now: float) -> Principal | None:
    """Return whose token was offered; None when it is unknown, wrong, expired or revoked."""
    form = FORM.fullmatch(offered)
    if form is None:
        return None
    token = tokens.get(form[1], _NOBODY)
    right = hmac.compare_digest(digest_of(form[2], token.salt), token.digest)
    if not right or token.revoked_at is not None or (token.expires_at is not None and now >= token.expires_at):
        return None
    scopes = frozenset(scope for role in token.roles for scope in ROLES.get(role, ()))
    return Principal(token.id, token.name, scopes)


def settings_principal(offered: str, admin_token: str | None) -> Principal | None:
    """Return the admin if the token of the settings was offered."""
    if admin_token is None or not hmac.compare_digest(offered.encode(), admin_token.encode()):
        return None
    return Principal(SETTINGS_ID, "the admin's token of the settings", ROLES["admin"])
