"""What a token opens, and what can be learned from what is kept of it."""

import json
from dataclasses import asdict, replace

import pytest

from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.api.access.hop import WINDOW_S, genuine, sign
from spendbrake.streams.api.access.rate import BURST_S, Rate
from spendbrake.streams.api.access.tokens import (
    FORM,
    ROLES,
    mint,
    principal_of,
    revoked,
    settings_principal,
)

NOW = 1_763_845_200.0


def made(*roles: str, **more):
    return mint("a name", roles or ("reader",), by="cli:me", now=NOW, **more)


def test_a_token_opens_what_its_roles_allow_and_nothing_else() -> None:
    for role, scopes in ROLES.items():
        text, kept = made(role)
        who = principal_of(text, {kept.id: kept}, NOW)
        assert who is not None
        assert (who.id, who.scopes) == (kept.id, scopes)


def test_two_approvals_cannot_come_from_one_role() -> None:
    for role, scopes in ROLES.items():
        assert not {"approve_finance", "approve_engineering"} <= scopes, role
    assert "tokens" not in ROLES["finance"] | ROLES["engineering"] | ROLES["operator"]


def test_machines_that_send_or_ask_can_read_nothing() -> None:
    assert ROLES["ingest"] == {"ingest"}
    assert ROLES["check"] == {"check"}


def test_nothing_of_the_secret_is_kept() -> None:
    text, kept = made("ingest")
    secret = text.rpartition("_")[2] if text.count("_") == 2 else text[len("sb_00000000_") :]
    assert FORM.fullmatch(text)
    assert secret not in json.dumps(asdict(kept))
    assert secret.encode() not in encode(kept)
    assert secret not in repr(kept)


def test_the_same_secret_under_two_salts_is_kept_as_two_digests() -> None:
    one, two = made()[1], made()[1]
    assert one.salt != two.salt
    assert one.digest != two.digest


@pytest.mark.parametrize("spoil", [lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), lambda t: t + "x", lambda t: ""])
def test_a_token_that_is_not_quite_right_opens_nothing(spoil) -> None:
    text, kept = made("admin")
    assert principal_of(spoil(text), {kept.id: kept}, NOW) is None


def test_the_secret_of_one_token_does_not_open_another() -> None:
    (text, one), (_, two) = made(), made("admin")
    swapped = text.replace(one.id, two.id)
    assert principal_of(swapped, {one.id: one, two.id: two}, NOW) is None


def test_a_revoked_and_an_expired_token_open_nothing() -> None:
    text, kept = made(expires_at=NOW + 60)
    assert principal_of(text, {kept.id: kept}, NOW + 59) is not None
    assert principal_of(text, {kept.id: kept}, NOW + 60) is None
    gone = revoked(kept, by="cli:you", now=NOW + 1)
    assert principal_of(text, {kept.id: gone}, NOW + 2) is None
    assert revoked(gone, by="cli:other", now=NOW + 9) == gone


def test_a_role_of_a_later_version_opens_nothing() -> None:
    text, kept = made()
    who = principal_of(text, {kept.id: replace(kept, roles=("overlord",))}, NOW)
    assert who is not None
    assert who.scopes == frozenset()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"roles": ["owner"]}, "roles: one or more of .*got owner"),
        ({"roles": []}, "roles: one or more of .*got none"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"expires_at": NOW}, "expires_at"),
        ({"expires_at": float("inf")}, "expires_at"),
        ({"expires_at": float("nan")}, "expires_at"),
    ],
)
def test_a_token_that_could_not_be_meant_is_refused_by_name(arguments, field) -> None:
    with pytest.raises(ValueError, match=field):
        mint(**{"name": "n", "roles": ["reader"], "by": "me", "now": NOW} | arguments)


def test_the_token_of_the_settings_is_the_admin_s_and_only_itself() -> None:
    who = settings_principal("a" * 32, "a" * 32)
    assert who is not None
    assert "tokens" in who.scopes
    assert settings_principal("a" * 31, "a" * 32) is None
    assert settings_principal("", None) is None


def test_a_hop_is_genuine_for_this_very_request_for_half_a_minute() -> None:
    secret = b"the secret"
    value = sign(secret, "GET", "/v1/teams?limit=1", NOW)
    assert genuine(value, [b"new", secret], "GET", "/v1/teams?limit=1", NOW + WINDOW_S)
    for method, target, at, secrets in (
        ("GET", "/v1/teams?limit=2", NOW, [secret]),
        ("POST", "/v1/teams?limit=1", NOW, [secret]),
        ("GET", "/v1/teams?limit=1", NOW + WINDOW_S + 1, [secret]),
        ("GET", "/v1/teams?limit=1", NOW, [b"other"]),
        ("GET", "/v1/teams?limit=1", NOW, []),
    ):
        assert not genuine(value, secrets, method, target, at)
    for rubbish in ("", "1", "v1", "v1,,", "v2" + value[2:], "v1,x,y", "v1,²,x"):
        assert not genuine(rubbish, [secret], "GET", "/v1/teams?limit=1", NOW)


def test_who_sends_too_fast_waits_and_nobody_else() -> None:
    now = [0.0]
    rate = Rate(100.0, lambda: now[0])
    assert rate.wait_s("a") == 0.0
    rate.spend("a", int(100 * BURST_S) + 500)
    assert rate.wait_s("a") == pytest.approx(5.01)
    assert rate.wait_s("b") == 0.0
    now[0] = 5.02
    assert rate.wait_s("a") == 0.0
    rate.spend("a", 1_000)
    assert rate.wait_s("a") > 9
