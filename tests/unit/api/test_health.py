"""When a process is said to be unwell: judged from look to look, by a clock that the test moves."""

from dataclasses import replace

import httpx
import pytest

from spendbrake.streams.api.app import api
from spendbrake.streams.api.health import CONTROL_S, SETTLE_S, STILL_S, Health, Place, Sight, Watch
from spendbrake.streams.metrics import Metrics

TP = ("usage.v1", 0)
WELL = Sight("burn", True, "", {TP: Place(5, 10, 10)}, {"usage.v1": 4}, control_age_s=1.0)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def at(expected: int | None, end: int | None, committed: int | None = None) -> Sight:
    return replace(WELL, places={TP: Place(committed, expected, end)})


def test_a_worker_that_has_read_everything_is_well(health: Health) -> None:
    report = health.judge([WELL])
    assert (report.status, report.reasons) == ("ok", [])
    (partition,) = report.services[0].partitions
    assert (partition.lag, partition.still_s) == (5, 0.0)


def test_a_lag_at_an_offset_that_does_not_move_is_bad_after_30_s(health: Health, clock: Clock) -> None:
    assert health.judge([at(10, 20)]).reasons == []
    clock.now += STILL_S - 1
    assert health.judge([at(10, 25)]).reasons == []
    clock.now += 1
    report = health.judge([at(10, 30)])
    assert report.status == "bad"
    assert report.reasons == ["burn: usage.v1/0 stands at 10 of 30 for 30 s"]


def test_what_is_delivered_and_not_acknowledged_is_lag_before_the_first_commit(health: Health) -> None:
    sight = replace(WELL, places={TP: Place(committed=None, expected=50, end=1_000, pending=10)})
    (partition,) = health.judge([sight]).services[0].partitions
    assert partition.lag == 990


def test_a_lag_that_is_worked_off_is_no_illness(health: Health, clock: Clock) -> None:
    for step in range(10):
        assert health.judge([at(10 + step, 1_000_000)]).reasons == []
        clock.now += STILL_S - 1


def test_a_partition_that_was_idle_has_its_30_s_from_the_first_new_record(health: Health, clock: Clock) -> None:
    health.judge([at(10, 10)])
    clock.now += 3_600
    assert health.judge([at(10, 11)]).reasons == [], "the record may have come this moment"
    clock.now += STILL_S
    assert health.judge([at(10, 11)]).reasons != []


def test_recovery_is_told_at_the_next_look(health: Health, clock: Clock) -> None:
    health.judge([at(10, 20)])
    clock.now += STILL_S
    assert health.judge([at(10, 20)]).reasons
    assert health.judge([at(11, 20)]).reasons == []


def test_waiting_for_a_receiver_is_no_illness(health: Health, clock: Clock) -> None:
    for _ in range(5):
        assert health.judge([at(20, 20, committed=3)]).reasons == []
        clock.now += STILL_S


def test_before_the_first_record_of_a_generation_the_commit_counts(health: Health, clock: Clock) -> None:
    health.judge([at(None, 20, committed=10)])
    clock.now += STILL_S
    assert health.judge([at(None, 20, committed=10)]).reasons
    assert health.judge([at(None, None)]).reasons == []
    assert health.judge([at(None, 20)]).reasons == [], "what is not known is no illness"


def test_a_partition_that_went_and_came_back_starts_afresh(health: Health, clock: Clock) -> None:
    health.judge([at(10, 20)])
    clock.now += STILL_S
    health.judge([replace(WELL, places={})])
    assert health.judge([at(10, 20)]).reasons == []


def test_a_topic_that_nobody_in_the_group_reads_is_bad_once_the_group_has_settled(health: Health) -> None:
    lonely = replace(WELL, places={}, anywhere={"usage.v1": 0})
    assert health.judge([replace(lonely, settled=False)]).reasons == []
    assert health.judge([lonely]).reasons == ["burn: nobody has a partition of usage.v1"]
    assert health.judge([replace(lonely, anywhere={"usage.v1": 32})]).reasons == [], "others have them all"


def test_a_group_that_never_settles_is_bad(health: Health, clock: Clock) -> None:
    waiting = replace(WELL, settled=False)
    health.judge([waiting])
    clock.now += SETTLE_S
    assert health.judge([waiting]).reasons == ["burn: its group does not settle"]
    assert health.judge([WELL]).reasons == []
    assert health.judge([waiting]).reasons == [], "the next rebalance has its own time"


def test_an_unread_control_topic_is_bad_for_those_who_follow_it(health: Health) -> None:
    assert health.judge([replace(WELL, control_age_s=CONTROL_S - 0.1)]).reasons == []
    assert health.judge([replace(WELL, control_age_s=CONTROL_S)]).reasons == ["burn: control.v1 was not read for 30 s"]
    assert health.judge([replace(WELL, control_age_s=None)]).reasons == []


def test_a_crash_is_bad_and_one_service_does_not_hide_another(health: Health) -> None:
    report = health.judge([WELL, replace(WELL, name="act-limits", crashed="KeyError('x')")])
    assert report.reasons == ["act-limits: crashed: KeyError('x')"]
    assert [service.name for service in report.services] == ["burn", "act-limits"]


async def test_health_and_metrics_are_served(clock: Clock) -> None:
    sights = [replace(WELL, holes=2, gaps=7)]
    watch = Watch(lambda: [lambda: sights[0]], Health(clock), Metrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api(watch.operations())), base_url="http://api") as http:
        well = await http.get("/healthz")
        assert (well.status_code, well.json()["status"]) == (200, "ok")
        await http.get("/metrics")
        sights[0] = replace(WELL, holes=3, gaps=7, crashed="boom")
        assert (await http.get("/healthz")).status_code == 503
        metrics = await http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    lines = metrics.text.splitlines()
    assert 'spendbrake_lag_records{partition="0",topic="usage.v1"} 5.0' in lines
    assert 'spendbrake_holes_total{topic="usage.v1"} 3.0' in lines
    assert 'spendbrake_gaps_total{topic="usage.v1"} 7.0' in lines


async def test_of_services_on_one_topic_the_one_furthest_behind_is_told(clock: Clock) -> None:
    quick, slow = replace(WELL, places={TP: Place(9, 9, 10)}, holes=1), replace(WELL, name="act-slack", holes=4)
    watch = Watch(lambda: [lambda: slow, lambda: quick], Health(clock), Metrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api(watch.operations())), base_url="http://api") as http:
        await http.get("/metrics")
        lines = (await http.get("/metrics")).text.splitlines()
    assert 'spendbrake_lag_records{partition="0",topic="usage.v1"} 5.0' in lines
    assert 'spendbrake_holes_total{topic="usage.v1"} 5.0' in lines


async def test_a_service_that_begins_later_is_watched_too(clock: Clock) -> None:
    services = [lambda: WELL]
    watch = Watch(lambda: services, Health(clock), Metrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api(watch.operations())), base_url="http://api") as http:
        await http.get("/healthz")
        services.append(lambda: replace(WELL, name="act-slack", crashed="boom"))
        report = await http.get("/healthz")
    assert report.status_code == 503
    assert [service["name"] for service in report.json()["services"]] == ["burn", "act-slack"]
