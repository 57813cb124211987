"""A real Envoy obeys ext_authz, over HTTP and over gRPC: block, throttle, downgrade; nobody gets past the filter."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from gateway.conftest import Deployment
from gateway_samples import chain
from servers.gateways import envoy
from servers.valkey import free_port
from spendbrake.actions.gateway.contract import Mark
from spendbrake.actions.gateway.store import Store
from spendbrake.schemas.decision import Decision, Scope, Stamp

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(400)]
TYPE = "type.googleapis.com/envoy"
TELLS = [
    "x-spendbrake-verdict",
    "x-spendbrake-action",
    "x-spendbrake-code",
    "x-spendbrake-model",
    "x-spendbrake-reset-at",
]
BACK = [*TELLS, "retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "ratelimit-policy"]
ON = ["x-spendbrake-model", "x-spendbrake-key", "x-spendbrake-verdict", "x-spendbrake-action"]
CHAT = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}


def exactly(names: list[str]) -> dict[str, Any]:
    return {"patterns": [{"exact": name, "ignore_case": True} for name in names]}


def http_service(at: Deployment) -> dict[str, Any]:
    asks = {"headers_to_add": [{"key": "authorization", "value": f"Bearer {at.token}"}]}
    tells = {
        "allowed_upstream_headers": exactly(ON),
        "allowed_client_headers": exactly([*BACK, "content-type"]),
        "allowed_client_headers_on_success": exactly(BACK),
    }
    service = {
        "server_uri": {"uri": at.url, "cluster": "authz_http", "timeout": "5s"},
        "path_prefix": "/v1/ext_authz",
        "authorization_request": asks,
        "authorization_response": tells,
    }
    return {"http_service": service, "allowed_headers": exactly(["x-spendbrake-key", "x-spendbrake-environment"])}


def grpc_service(at: Deployment) -> dict[str, Any]:
    metadata = [{"key": "authorization", "value": f"Bearer {at.token}"}]
    envoy_grpc = {"cluster_name": "authz_grpc"}
    return {"grpc_service": {"envoy_grpc": envoy_grpc, "timeout": "5s", "initial_metadata": metadata}}


def cluster(name: str, port: int, *, http2: bool = False) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    options = f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"
    protocol = {"@type": options, "explicit_http_config": {"http2_protocol_options": {}}}
    made = {
        "name": name,
        "connect_timeout": "2s",
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }
    if http2:
        made["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol}
    return made


def configuration(at: Deployment, port: int, upstream: int, service: dict[str, Any], authz: int) -> str:
    """An Envoy that knows keys by the header x-api-key and asks about every request but its own health."""
    filters = f"{TYPE}.extensions.filters.http"
    keys = {
        "@type": f"{filters}.api_key_auth.v3.ApiKeyAuth",
        "credentials": [{"key": "secret-of-shop", "client": "key-shop"}, {"key": "secret-of-dev", "client": "key-dev"}],
        "key_sources": [{"header": "x-api-key"}],
        "forwarding": {"header": "x-spendbrake-key", "hide_credentials": True},
    }
    asks = {
        "@type": f"{filters}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "clear_route_cache": True,
        "with_request_body": {"max_request_bytes": 1_000, "allow_partial_message": True},
        **service,
    }
    health = {"match": {"path": "/healthy"}, "direct_response": {"status": 200}}
    health["typed_per_filter_config"] = {
        "ext_authz": {"@type": f"{filters}.ext_authz.v3.ExtAuthzPerRoute", "disabled": True},
        "api_key_auth": {"@type": f"{TYPE}.config.route.v3.FilterConfig", "disabled": True, "config": {}},
    }
    small = {"prefix": "/", "headers": [{"name": "x-spendbrake-model", "string_match": {"exact": "small"}}]}
    routes = [
        health,
        {"match": small, "route": {"cluster": "upstream", "prefix_rewrite": "/small/"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
    ]
    manager = {
        "@type": f"{filters.replace('.http', '.network')}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "api_key_auth", "typed_config": keys},
            {"name": "ext_authz", "typed_config": asks},
            {"name": "router", "typed_config": {"@type": f"{filters}.router.v3.Router"}},
        ],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    chains = [{"filters": [{"name": "http", "typed_config": manager}]}]
    clusters = [
        cluster("upstream", upstream),
        cluster("authz_http", int(at.url.rpartition(":")[2])),
        cluster("authz_grpc", authz, http2=True),
    ]
    listeners = [{"name": "in", "address": address, "filter_chains": chains}]
    return yaml.safe_dump({"static_resources": {"listeners": listeners, "clusters": clusters}})


class Upstream(BaseHTTPRequestHandler):
    """A model's server: tells what has arrived."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = json.dumps({"path": self.path, "headers": headers, "body": body.decode()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *about: Any) -> None:
        pass


@contextmanager
def upstream() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


class World:
    """Envoy before an upstream, asking a deployment."""

    def __init__(self, at: Deployment, url: str) -> None:
        self.at, self.client = at, redis.Redis.from_url(at.redis_url)
        self.store = Store(self.client, at.prefix)
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._stamp = int(time.time())

    def publish(self, *decisions: Decision) -> None:
        now = time.time()
        self._stamp += 1
        stamp = Stamp(epoch=10**6, offset=self._stamp)
        self.store.write_keys({"key-shop": chain(stamp=stamp), "key-dev": chain(stamp=stamp)}, now=now)
        self.client.delete(self.store.layout.decisions("payments"))
        self.store.write_decisions(decisions, now=now)
        places = [("usage.v1", 3), ("rollups.v1", 1), ("rollups.v1", 0)]
        self.store.write_marks([Mark(log=log, partition=n, at=now, stamp=stamp) for log, n in places], now=now)

    def decide(self, verdict: Any, scope: Scope | None = None, **more: Any) -> Decision:
        self._stamp += 1
        return Decision(
            node="payments", scope=scope or Scope(), policy="test", verdict=verdict, partition=3,
            stamp=Stamp(epoch=10**6, offset=self._stamp), code="by_hand", reason=f"because of {verdict}",
            action_id="a-1", expires_at=time.time() + 600, **more,
        )  # fmt: skip

    def ask(self, body: Any = CHAT, key: str = "secret-of-shop", **headers: str) -> httpx.Response:
        named = {"x-api-key": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.http.post("/v1/chat/completions", json=body, headers=named)

    def close(self) -> None:
        self.http.close()
        self.client.close()


@pytest.fixture(params=["http", "grpc"])
def world(request: pytest.FixtureRequest, deployed: Any, tmp_path: Path) -> Iterator[World]:
    folder, authz, port = tmp_path / "envoy", free_port(), free_port()
    folder.mkdir()
    with deployed(authz={"port": authz}) as at, upstream() as model:
        service = (http_service if request.param == "http" else grpc_service)(at)
        with envoy(folder, configuration(at, port, model, service, authz), port) as gateway:
            made = World(at, gateway.url)
            try:
                yield made
            except BaseException:
                print(gateway.said[-4_000:])
                raise
            finally:
                made.close()


def test_envoy_obeys(world: World) -> None:
    """One deployment for all of it: each part begins with a decision of its own."""
    an_allowed_request_arrives_as_it_was_sent(world)
    a_stranger_is_not_even_asked_about(world)
    a_caller_cannot_name_another_key_or_model(world)
    a_body_that_two_readers_may_read_differently_is_refused(world)
    a_block_is_429_with_its_reason(world)
    a_throttle_tells_when_to_come_back(world)
    a_downgrade_names_the_model_and_takes_another_route(world)
    a_body_that_comes_in_part_still_names_its_model(world)
    without_the_deployment_nothing_passes(world)


def an_allowed_request_arrives_as_it_was_sent(world: World) -> None:
    world.publish()
    answer = world.ask()
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["path"], json.loads(told["body"])) == ("/v1/chat/completions", CHAT)
    assert told["headers"]["x-spendbrake-key"] == "key-shop"
    assert told["headers"]["x-spendbrake-model"] == "large"
    assert "x-api-key" not in told["headers"]
    assert "authorization" not in told["headers"], "the token of the gateway goes to nobody else"
    own = world.ask(authorization="Bearer of-the-caller").json()["headers"]
    assert own["authorization"] == "Bearer of-the-caller", "the caller's own is not taken for the gateway's"


def a_stranger_is_not_even_asked_about(world: World) -> None:
    assert world.ask(key="secret-of-nobody").status_code == 401


def a_caller_cannot_name_another_key_or_model(world: World) -> None:
    world.publish(world.decide("block", Scope(models=("large",))))
    assert world.ask(x_spendbrake_key="key-dev", x_spendbrake_model="small").status_code == 429
    answer = world.ask({**CHAT, "model": "small"}, x_spendbrake_model="large")
    assert (answer.status_code, answer.json()["headers"]["x-spendbrake-model"]) == (200, "small")


def a_body_that_two_readers_may_read_differently_is_refused(world: World) -> None:
    world.publish(world.decide("block", Scope(models=("large",))))
    headers = {"x-api-key": "secret-of-shop", "content-type": "application/json", "x-spendbrake-model": "small"}
    hidden = b'{"metadata": {"model": "small"}, "padding": "' + b"x" * 2_000 + b'", "model": "large"}'
    for body, status in (
        (b'{"model": "small", "model": "large"}', 400),
        (b'{"model": "large", "x": "\xff"}', 429),
        (b'{"model": "large", "x": ' + b"[" * 900, 400),
        (hidden, 413),
        (iter([hidden]), 413),  # in chunks: its size is not known
    ):
        answer = world.http.post("/v1/chat/completions", content=body, headers=headers)
        assert answer.status_code == status, answer.text


def a_block_is_429_with_its_reason(world: World) -> None:
    end = time.time() + 3_600
    world.publish(world.decide("block", reset_at=end))
    answer = world.ask()
    assert answer.status_code == 429
    assert answer.json()["error"] | {"reset_at": 0} == {
        "message": "because of block", "type": "spendbrake", "code": "by_hand", "verdict": "block",
        "action_id": "a-1", "reset_at": 0,
    }  # fmt: skip
    assert 3_500 < int(answer.headers["retry-after"]) <= 3_600
    assert answer.headers["x-spendbrake-reset-at"] == f"{end:.0f}"
    assert (answer.headers["x-spendbrake-verdict"], answer.headers["x-spendbrake-action"]) == ("block", "a-1")


def a_throttle_tells_when_to_come_back(world: World) -> None:
    world.publish(world.decide("throttle", max_rps=0.01, burst=1))
    first, second = world.ask(), world.ask(key="secret-of-dev")
    assert (first.status_code, second.status_code) == (200, 429)
    assert (first.headers["ratelimit-limit"], first.headers["ratelimit-remaining"]) == ("1", "0")
    assert 0 < int(second.headers["retry-after"]) <= 100
    assert second.headers["x-spendbrake-code"] == "by_hand"


def a_downgrade_names_the_model_and_takes_another_route(world: World) -> None:
    world.publish(world.decide("downgrade", model="small"))
    answer = world.ask()
    told = answer.json()
    assert answer.status_code == 200
    assert (answer.headers["x-spendbrake-verdict"], answer.headers["x-spendbrake-model"]) == ("downgrade", "small")
    assert (told["path"], told["headers"]["x-spendbrake-model"]) == ("/small/v1/chat/completions", "small")


def a_body_that_comes_in_part_still_names_its_model(world: World) -> None:
    world.publish(world.decide("block", Scope(models=("large",))))
    long = {**CHAT, "padding": "x" * 2_000}
    assert world.ask(long).status_code == 429
    assert world.ask({**long, "model": "small"}).status_code == 200
    hidden = {"padding": "x" * 2_000, "model": "large"}
    answer = world.ask(hidden)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def without_the_deployment_nothing_passes(world: World) -> None:
    world.publish()
    assert world.ask().status_code == 200
    world.at.__exit__()
    assert world.ask().status_code == 503
