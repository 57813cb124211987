"""Metrics are one list; outcomes are added by name."""

from collections import Counter

import pytest

from spendbrake.streams.metrics import METRICS, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_counters_of_an_outcome_are_added_under_their_full_names() -> None:
    metrics = Metrics()
    counters: Counter[tuple[str, str]] = Counter({("dead_letters", "bad_time"): 3, ("events", ""): 1})
    metrics.add(counters)
    metrics.add(counters)
    assert value(metrics, "spendbrake_dead_letters_total", reason="bad_time") == 6
    assert value(metrics, "spendbrake_events_total") == 2
    assert b'spendbrake_dead_letters_total{reason="bad_time"} 6.0' in metrics.exposition()


def test_a_name_outside_the_list_is_a_mistake_and_raises() -> None:
    with pytest.raises(KeyError):
        Metrics().add(Counter({("evnets", ""): 1}))


def test_a_missing_label_is_a_mistake_and_raises() -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics().count("findings")


def test_gauges_and_times_carry_their_unit_in_the_name() -> None:
    metrics = Metrics()
    metrics.set("lag", 7, "usage.v1", "3")
    metrics.observe("step", 0.02)
    assert value(metrics, "spendbrake_lag_records", topic="usage.v1", partition="3") == 7
    assert value(metrics, "spendbrake_step_seconds_sum") == 0.02
    assert value(metrics, "spendbrake_step_seconds_bucket", le="0.01") == 0
    assert value(metrics, "spendbrake_step_seconds_bucket", le="0.025") == 1


def test_names_are_distinct_and_times_are_in_seconds() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(metric.unit == "seconds" for metric in METRICS if metric.kind == "histogram")


def test_two_processes_in_one_interpreter_do_not_share_a_registry() -> None:
    first, second = Metrics(), Metrics()
    first.count("events")
    assert value(second, "spendbrake_events_total") == 0
