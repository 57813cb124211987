"""`spendbrake doctor`: what is wrong with a deployment, in one list."""

import time
from collections.abc import AsyncIterator
from typing import Any

import typer

from spendbrake.streams.cli.base import broker_of, console, marked, place_of, run, settings

Check = tuple[str, str, str]
"""(state: ok, warn or bad; what; detail)."""
STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}
SHORT_HORIZON_S = 3_600.0


def doctor() -> None:
    """Look at settings, broker, topics, versions, Redis and dedupe horizon; end with 1 if something is bad."""
    if run(_doctor()):
        raise typer.Exit(1)


async def _doctor() -> bool:
    bad = False
    async for state, what, detail in _checks():
        bad |= state == "bad"
        console.print(marked(STYLES[state], f"{state:<4}", f" {what}: {detail}"), highlight=False)
    return bad


async def _checks() -> AsyncIterator[Check]:
    from spendbrake.streams.settings import unknown_names

    config = settings()
    yield "ok", "settings", f"broker {config.shown()['broker']}, prefix {config.prefix or '(none)'}"
    for name in unknown_names():
        yield "warn", "settings", f"{name} means nothing here: misspelt?"
    place = place_of(config)
    async with broker_of(config) as broker:
        problems = await broker.check_topics(place.plans())
        if set(problems) == {f"{plan.name}: does not exist" for plan in place.plans()}:
            yield "bad", "topics", "there is none yet: `spendbrake up` makes them, on Kafka `spendbrake topics create`"
            return
        for problem in problems:
            yield "bad", "topics", problem
        if problems:
            return
        yield "ok", "topics", f"{len(place.plans())} as they must be, {place.partitions} partitions"
        async for check in _versions(broker, place, config):
            yield check
        async for check in _horizon(config, place, broker):
            yield check
    yield _redis(config)


async def _versions(broker: Any, place: Any, config: Any) -> AsyncIterator[Check]:
    from spendbrake.schemas.policy import PolicyFile
    from spendbrake.streams.settings import named_secret
    from spendbrake.streams.workers.deployment import Refused, admitted, read_versions

    versions = await read_versions(broker, place)
    try:
        await admitted(broker, place, versions)
        yield "ok", "registrations", "topics are the ones that were registered"
    except Refused as error:
        yield "bad", "registrations", str(error)
    yield _access(versions, config)
    if not versions.policies:
        yield "bad", "policy", "none in force: spendbrake policy apply FILE"
        return
    rules = versions.book.at(time.time())
    yield "ok", "policy", f"version {rules.version} in force, {len(versions.owners)} versions of owners"
    file: PolicyFile = rules.file
    missing = [
        f"{name}: {variable} is not set in this environment"
        for name, destination in file.destinations.items()
        for variable in sorted(_variables(destination))
        if named_secret(variable) is None
    ]
    for problem in missing:
        yield "warn", "destinations", problem
    if file.destinations and not missing:
        told = f"all {len(file.destinations)} have their variables; `spendbrake destination test NAME` shows what works"
        yield "ok", "destinations", told


def _access(versions: Any, config: Any) -> Check:
    """Tell who could ask the API for what."""
    from spendbrake.streams.api.access.gate import LOOPBACK

    held = sum(token.revoked_at is None for token in versions.tokens.values())
    if versions.tokens or config.admin_token is not None:
        return (
            "ok",
            "access",
            f"{held} API tokens hold" + (", and the admin's of the settings" * bool(config.admin_token)),
        )
    hosts = {config.http.host, config.authz.host, config.metrics.host} - set(LOOPBACK)
    if hosts:
        return "bad", "access", f"no API token: what listens on {', '.join(sorted(hosts))} does not start"
    return "warn", "access", "no API token: everybody on this machine may ask the API for everything"


def _variables(destination: Any) -> set[str]:
    """Return the variables a destination reads; a mail server without a username asks for no password."""
    named = {name: getattr(destination, name) for name in type(destination).model_fields if name.endswith("_env")}
    if destination.type == "email" and destination.username is None:
        del named["password_env"]
    return {variable for variable in named.values() if variable is not None}


async def _horizon(config: Any, place: Any, broker: Any) -> AsyncIterator[Check]:
    """Estimate how far back duplicates are recognised, from what the log holds."""
    from spendbrake.schemas.topics import USAGE
    from spendbrake.streams.engine.state.fingerprints import BLOCK

    ends = await broker.ends(place.topic(USAGE.name))
    size = config.burn.dedupe_blocks * BLOCK
    busiest = max((end - start for start, end in ends.values()), default=0)
    if busiest <= size:
        yield (
            "ok",
            "dedupe",
            f"the whole log ({busiest:,} records in its longest partition) fits the {size:,} remembered",
        )
        return
    share_s = config.retention.usage_s * size / busiest
    state = "warn" if share_s < SHORT_HORIZON_S else "ok"
    yield state, "dedupe", f"at least {share_s / 3600:.1f} h back, if the log spans its retention"


def _redis(config: Any) -> Check:
    if config.redis.startswith("embedded:"):
        return "ok", "redis", "embedded: started by `spendbrake up`"
    from spendbrake.actions.gateway.store import Store, StoreUnavailable

    store = Store.from_url(config.redis)
    try:
        store.ping()
    except StoreUnavailable as error:
        return "bad", "redis", str(error)
    finally:
        store.close()
    return "ok", "redis", "answers"
