"""Quiet hours and the deadline to acknowledge, from usage to receivers: a night and a morning by a trace's clock.

All parts are real but the receivers: Kafka, Valkey, the workers and commands as processes. When each alert was told is
read from the results, which are stamped with the trace's clock.
"""

from collections.abc import Callable, Iterator

import pytest
import redis

from kafka.deployment import PARTITIONS, Deployment, wait_for_verdict
from kafka.sums import eventually
from kafka.whole.test_first_slice import Trace, call
from servers.pagerduty import PagerDutyServer
from servers.receivers import SlackServer
from spendbrake.schemas.action import Action
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS, RESULTS
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.murmur import partition_of

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
Deploy = Callable[..., Deployment]

NIGHT = 1_769_725_800.0  # 2026-01-29T22:30:00Z
MORNING = NIGHT + 8.5 * 3_600  # 07:00
DEADLINE_S = 10 * 3_600.0  # 08:30 and a bit
MONTH_END = NIGHT + 49.5 * 3_600
KEY = "k" * 32
CENT = 10_000_000


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    with SlackServer(page=200, now=NIGHT) as server:
        yield server


@pytest.fixture
def pager() -> Iterator[PagerDutyServer]:
    with PagerDutyServer(KEY) as server:
        yield server


def policy(slack: SlackServer, pager: PagerDutyServer) -> dict[str, object]:
    block = {"name": "block", "limit": {"verdict": "block"}, "notify": ["ops", "pager"]}
    slow = {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 5}}
    together = {"group_by": ["severity"], "group_wait_s": 30, "repeat_interval_s": 30 * 86_400}
    return {
        "nodes": [{"id": "acme", "level": "organization"}],
        "defaults": {"team": {"monthly_budget_usd": 1}},
        "detection": {"enabled": False},
        "policies": [
            {"name": "told", "when": {"tiers": ["soft"]}, "rungs": [{"name": "tell", "notify": ["ops"]}]},
            {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [block]},
            {"name": "burning", "when": {"detectors": ["burn_rate"]}, "hold_s": 600, "rungs": [slow]},
        ],
        "burn_rates": [
            {"name": "fast", "long_s": 3_600, "short_s": 300, "times": 14.4, "severity": "warning", "floor_usd": 0.5}
        ],
        "destinations": {
            "ops": {"type": "slack", "channel": "#payments-ops", "base_url": slack.base_url, "grouping": together},
            "pager": {"type": "pagerduty", "base_url": pager.base_url},
        },
        "delivery": {
            "quiet_hours": [{"start": "22:00", "end": "07:00"}],
            "escalation": {"to": "pager", "after_s": DEADLINE_S},
        },
    }


class Told:
    """What has been told, by team."""

    def __init__(self, deployment: Deployment, slack: SlackServer, pager: PagerDutyServer) -> None:
        self.deployment, self.slack, self.pager = deployment, slack, pager

    def on_slack(self) -> list[list[str]]:
        """The teams that each message is about."""
        said = [f"{message.text} {message.blocks}" for message in self.slack.messages]
        return [[team for team in ("maps", "vision", "web") if team in text] for text in said]

    def on_pager(self) -> dict[str, str]:
        return {each.payload["source"]: each.status for each in self.pager.incidents.values()}

    def ordered(self) -> list[Action]:
        """Notifications, from their log."""
        return [action for action in self.deployment.actions() if action.destination]

    def alert(self, team: str) -> Action:
        return next(action for action in self.ordered() if action.node == team and action.destination == "ops")

    def ends(self, effect: str, outcome: str) -> list[Result]:
        """Return the results of a class that came to this, in their order."""
        found = [decode(Result, record.value or b"") for record in self.deployment.read(RESULTS.name)]
        return [result for result in found if (result.effect, result.outcome) == (effect, outcome)]

    def at(self, team: str) -> float:
        """Return when Slack was told of a team, by the trace's clock."""
        alert = self.alert(team)
        return next(each.at for each in self.ends("slack", "done") if each.action == alert.id)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        eventually(holds, what, lambda: f"{self.on_slack()} {self.on_pager()}\n{self.deployment.logs()}")


def test_a_night_is_quiet_for_what_can_wait_and_who_acknowledges_in_time_wakes_nobody(
    deploy: Deploy, slack: SlackServer, pager: PagerDutyServer
) -> None:
    secrets = {"SLACK_BOT_TOKEN": slack.token, "PAGERDUTY_ROUTING_KEY": KEY}
    deployment = deploy(policy(slack, pager), simulation=True, **secrets)
    told, trace = Told(deployment, slack, pager), Trace(deployment, NIGHT)
    for worker in (deployment.burn, deployment.act):
        worker()
    for kind in ("slack", "pagerduty"):
        deployment.act(kind)

    # At half past ten two teams come to 80 % of their budget: that can wait. A third has spent all of it. Each of the
    # two has its own partition of the log, and what is told of them lies on a third.
    assert len({partition_of(name, PARTITIONS) for name in (b"vision", b"maps", b'["ops"]')}) == 3
    trace.tick(NIGHT)
    for number, (team, cents) in enumerate((("vision", 80), ("maps", 80), ("web", 101))):
        trace.put(call(number, NIGHT + 60, team=team, cost=cents * CENT))
    trace.tick(NIGHT + 200)
    guard = deployment.guard(clock=lambda: trace.now)
    wait_for_verdict(guard, "key-web", "block", deployment)
    wait_for_verdict(guard, "key-vision", "throttle", deployment)  # it burns too fast; no limit waits for the morning
    # All three alerts are taken in, each class on its own. Slack's wait for half a minute for others, by the clock of
    # the partition that they are told at.
    told.until(lambda: len({each.node for each in told.ordered()}) == 3, "all three alerts")
    ends = deployment.ends(ACTIONS.name)
    for group in ("act-slack", "act-pagerduty"):
        told.until(lambda group=group: deployment.has_reached(group, ACTIONS.name, ends), f"{group} to take them in")
    assert told.on_pager() == {"web": "triggered"}
    trace.tick(NIGHT + 300)
    told.until(lambda: told.on_slack() == [["web"]], "the cap to be told")

    # At seven the night is over: both are told in one message. Nothing burns any more.
    trace.tick(MORNING + 5)
    told.until(lambda: told.on_slack() == [["web"], ["maps", "vision"]], "what has waited")
    wait_for_verdict(guard, "key-vision", "allow", deployment)
    guard.close()
    assert told.at("web") < NIGHT + 600, "it could not wait"
    assert all(told.at(team) >= MORNING for team in ("maps", "vision"))

    # Two are taken on, the pager's own last: once it has heard of that, it has heard of both.
    for team in ("maps", "web"):
        deployment.run("ack", told.alert(team).id)
    told.until(lambda: told.on_pager() == {"web": "acknowledged"}, "the pager to be told who has it")

    # An hour and a half later the third has been told ten hours ago, and nobody has answered.
    deadline = told.alert("vision").time + DEADLINE_S
    trace.tick(deadline - 1)
    trace.tick(deadline + 5)
    told.until(lambda: told.on_pager() == {"web": "acknowledged", "vision": "triggered"}, "the escalation")
    told.until(lambda: [each.error for each in told.ends("pagerduty", "muted")] == ["acknowledged in time"], "maps")
    done = [each.at for each in told.ends("pagerduty", "done")]
    assert len(done) == 3, "web, that it was taken on, vision"
    assert done[0] < NIGHT + 600
    assert done[-1] >= deadline
    with redis.Redis.from_url(deployment.redis_url) as client:
        assert [*client.scan_iter(f"{deployment.prefix.rstrip('.')}:turns:*")], "workers share the key's turns"
    (summary,) = next(each.summaries for each in pager.incidents.values() if each.payload["source"] == "vision")
    assert "Not acknowledged in 10 h" in summary

    # The month ends in the night after next: what was told is told to be over, at once.
    trace.tick(MONTH_END + 20)
    told.until(lambda: told.on_pager() == {"web": "resolved", "vision": "resolved"}, "the ends of both")
    assert [worker.stop() for worker in deployment.workers] == [0] * 4, deployment.logs()
    deployment.run("audit", "verify")
