"""The demo's on-call: a real webhook receiver on loopback that believes signed messages only."""

import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spendbrake.streams.api.app import serve

VARIABLE = "SPENDBRAKE_DEMO_SECRET"
"""Name under which the demo's policy file asks for the secret; it is made anew for each run."""

Tell = Callable[[Mapping[str, Any]], None]


class Receiver:
    """Where the demo's notifications go.

    Attributes:
        tell: Called with the data of each message, once.
        forged: Messages whose signature was not good.
    """

    def __init__(self) -> None:
        self._secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
        self._hook = Webhook(self._secret)
        self.tell: Tell = lambda data: None
        self._seen: set[str] = set()
        self.forged = 0

    def secret(self, name: str) -> SecretStr | None:
        """Return the secret that signs what is meant for this receiver."""
        return SecretStr(self._secret) if name == VARIABLE else None

    async def take(self, request: Request) -> Response:
        """Take a message once; refuse what is not signed."""
        body = await request.body()
        try:
            message = self._hook.verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.forged += 1
            return Response(status_code=401)
        if request.headers["webhook-id"] not in self._seen:
            self._seen.add(request.headers["webhook-id"])
            self.tell(message["data"])
        return Response(status_code=204)


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[str]:
    """Serve a receiver on a free port of loopback; yield its URL."""
    app = Starlette(routes=[Route("/on-call", receiver.take, methods=["POST"])])
    running = await serve(app, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{running.port}/on-call"
    finally:
        await running.stop()
