"""The chain of results: no change, no gap and no second version goes unseen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.delivery.chain import Chain, digest_of, verify
from spendbrake.schemas.result import Result
from unit.delivery.test_runner import ACTION


def chain_of(writer: str, length: int) -> list[Result]:
    chain = Chain(writer)
    return [
        chain.link(replace(ACTION, id=f"a-{n}"), "done", at=float(n), attempts=1, response={"ts": str(n)})
        for n in range(length)
    ]


@given(st.randoms(), st.integers(0, 5), st.integers(1, 5))
def test_whole_chains_are_sound_in_any_order_and_when_published_twice(rng, first: int, second: int) -> None:
    results = [*chain_of("w-1", first), *chain_of("w-2", second), *chain_of("w-2", second)]
    rng.shuffle(results)
    problems, ends = verify(results)
    assert problems == []
    assert {end.writer: end.sequence for end in ends} == {
        **({"w-1": first - 1} if first else {}),
        "w-2": second - 1,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "failed"},
        {"at": 99.0},
        {"at": float("nan")},
        {"at": float("-inf")},
        {"attempts": 2},
        {"response": {"ts": "9"}},
        {"action": "other"},
        {"error": ""},
        {"destination": "x"},
    ],
)
def test_a_changed_field_is_named(change: dict[str, object]) -> None:
    results = chain_of("w", 4)
    results[2] = replace(results[2], **change)
    problems, _ = verify(results)
    assert [(problem.kind, problem.sequence) for problem in problems] == [("altered", 2)]


def test_a_changed_result_with_a_new_digest_breaks_the_next_link() -> None:
    results = chain_of("w", 4)
    forged = replace(results[1], outcome="failed")
    results[1] = replace(forged, digest=digest_of(forged))
    problems, _ = verify(results)
    assert [(problem.kind, problem.sequence) for problem in problems] == [("broken", 2)]


def test_a_result_taken_out_is_missed_except_at_the_end() -> None:
    results = chain_of("w", 4)
    problems, _ = verify([results[0], results[3]])
    assert [(problem.kind, problem.text) for problem in problems] == [("missing", "1 to 2")]
    problems, (end,) = verify(results[:3])
    assert (problems, end.sequence) == ([], 2), "an open end, named for whoever knows better"


def test_an_end_that_was_known_and_is_gone_was_cut_off() -> None:
    results = chain_of("w", 4)
    _, known = verify(results)
    assert verify(results, known)[0] == []
    for left in (results[:3], []):
        (problem,) = verify(left, known)[0]
        assert (problem.kind, problem.sequence) == ("cut", 3)
    other = replace(results[3], attempts=7)
    problems, _ = verify([*results[:3], replace(other, digest=digest_of(other))], known)
    assert [problem.kind for problem in problems] == ["cut"], "another result in its place, well chained"


def test_a_log_that_has_dropped_its_oldest_breaks_no_chain() -> None:
    results = chain_of("w", 5)
    _, known = verify(results[:2])
    problems, (end,) = verify(results[3:], known)
    assert (problems, end.first, end.sequence) == ([], 3, 4)


def test_a_chain_whose_end_is_older_than_all_that_is_kept_was_not_cut_off() -> None:
    old, kept = chain_of("old", 2), [replace(each, at=each.at + 1e6) for each in chain_of("new", 2)]
    kept = [replace(each, digest="") for each in kept]
    _, known = verify(old)
    assert "cut" not in [problem.kind for problem in verify(kept, known)[0]]
    assert "cut" in [problem.kind for problem in verify([*kept, old[0]], known)[0]]


def test_two_results_under_one_number_are_a_fork() -> None:
    results = chain_of("w", 2)
    other = replace(results[1], attempts=7)
    problems, _ = verify([*results, replace(other, digest=digest_of(other))])
    assert [(problem.kind, problem.sequence) for problem in problems] == [("forked", 1)]


def test_the_digest_of_a_result_never_changes() -> None:
    (result,) = chain_of("w", 1)
    assert result.digest == "8e2c920a85149fd63aa91b8509882e37f3a931e669c13b6aa309356e7ec87221"
