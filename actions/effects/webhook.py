"""Effect `webhook`: a signed POST in the format of Standard Webhooks. The receiver drops ids it has seen.

Specification: https://www.standardwebhooks.com. The id is the action's, the same on every try.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from standardwebhooks import Webhook as HmacSigner
from standardwebhooks.webhooks import EmptyWebhookSecretError

from spendbrake.actions.effects.base import Effect, GiveUp
from spendbrake.actions.effects.calls import Caller
from spendbrake.actions.effects.messages.payload import body_of
from spendbrake.actions.effects.targets import Guarded, Network, Resolve
from spendbrake.schemas.action import Action

PRIVATE_KEY = "whsk_"
"""What begins so is an ed25519 key; all else is a shared secret, `whsec_` and base64."""


class Signer(Protocol):
    """Signs messages."""

    def sign(self, msg_id: str, timestamp: datetime, data: str) -> str:
        """Return one signature with its version: `v1,<base64>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A receiver.

    Attributes:
        secrets: Each signs every message, so that a receiver may go over from one to the next: `whsec_` and base64
            (HMAC-SHA256), or `whsk_` and base64 (ed25519).
    """

    url: str
    secrets: tuple[str, ...] = field(repr=False)


class Webhook(Effect):
    """Posts actions to the endpoints of the policy file's webhook destinations.

    Args:
        endpoints: By destination name.
        clock: Wall clock, epoch seconds UTC: receivers refuse signatures five minutes off.
        timeout_s: For a whole try, connecting included.
        allowed: Networks that are not public and may be reached all the same.
        resolve: How names are looked up.

    Raises:
        ValueError: a secret is none.
    """

    name = "webhook"
    takes_ids = True

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        clock: Callable[[], float],
        timeout_s: float = 10.0,
        allowed: Iterable[Network] = (),
        resolve: Resolve | None = None,
    ) -> None:
        self._clock = clock
        networks = tuple(allowed)
        # A client each: connections are kept by address, and must not be shared by two names.
        self._endpoints = {
            name: (
                place.url,
                [_signer(secret) for secret in place.secrets],
                Caller(clock, timeout_s=timeout_s, transport=Guarded(networks, resolve=resolve)),
            )
            for name, place in endpoints.items()
        }

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Post one action; any 2xx is success.

        Raises:
            Retry: no connection, a time-out, 408, 425, 429 or 5xx; `Retry-After` is passed on.
            GiveUp: any other answer, a target inside, or a destination that is not configured.
        """
        try:
            url, signers, caller = self._endpoints[action.destination]
        except KeyError:
            raise GiveUp(f"no webhook destination is named {action.destination!r}") from None
        body = body_of(action)
        headers = self._headers(action.id, body, signers)
        answer = await caller.call("POST", url, read=False, content=body, headers=headers)
        return {"status": answer.status}

    async def find(self, action: Action) -> bool | None:
        """Return None: a webhook's receiver cannot be asked, and need not be."""
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        for _, _, caller in self._endpoints.values():
            await caller.aclose()

    def _headers(self, name: str, body: bytes, signers: Iterable[Signer]) -> dict[str, str]:
        now = int(self._clock())
        at = datetime.fromtimestamp(now, UTC)
        return {
            "content-type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(signer.sign(name, at, body.decode()) for signer in signers),
        }


class Ed25519Signer:
    """Signs with a private key, so that receivers hold nothing that could sign."""

    def __init__(self, secret: str) -> None:
        from base64 import b64decode

        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        seed = b64decode(secret.removeprefix(PRIVATE_KEY), validate=True)
        # 64 bytes are seed and public key, as some tools write them.
        self._key = Ed25519PrivateKey.from_private_bytes(seed[:32] if len(seed) == 64 else seed)

    def sign(self, msg_id: str, timestamp: datetime, data: str) -> str:
        """Return one signature: `v1a,<base64>`."""
        from base64 import b64encode

        signed = f"{msg_id}.{int(timestamp.timestamp())}.{data}".encode()
        return f"v1a,{b64encode(self._key.sign(signed)).decode()}"


def _signer(secret: str) -> Signer:
    if secret.startswith(PRIVATE_KEY):
        return Ed25519Signer(secret)
    try:
        signer: Signer = HmacSigner(secret)
    except EmptyWebhookSecretError as error:
        raise ValueError(str(error)) from None
    return signer
