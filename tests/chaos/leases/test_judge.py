"""The judge of leases sees a cap that was passed, one that was refused too early, and books that differ."""

from chaos.leases.holders import MOST, Spent, judge
from chaos.verdict import Verdict

CAP = 100 * MOST


def spent(*costs: int, losses: int = 0, whole: bool = True) -> Spent:
    return Spent("lessee-00", CAP, list(costs), whole=whole, losses=losses)


def problems(one: Spent, counted: int | None = None, exported_usd: float = 1e6) -> list[str]:
    verdict = Verdict()
    judge(verdict, [one], {"lessee-00": sum(one.costs) if counted is None else counted}, exported_usd)
    return verdict.problems


def test_a_cap_that_was_spent_to_the_end_is_well() -> None:
    assert problems(spent(CAP)) == []
    assert problems(spent(CAP - MOST + 1)) == []


def test_a_nano_dollar_past_a_cap_is_told_unless_leases_were_forgotten() -> None:
    (told,) = problems(spent(CAP + 1))
    assert told == "lessee-00: 1 nano-USD past its cap, bound 0"
    assert problems(spent(CAP + 1, losses=1)) == []


def test_only_calls_under_way_when_leases_were_forgotten_come_on_top_and_no_more_than_workers_told() -> None:
    assert problems(spent(CAP, 6 * MOST, losses=1)) == []
    (told,) = problems(spent(CAP, 6 * MOST + 1, losses=1))
    assert told == f"lessee-00: {6 * MOST + 1} nano-USD past its cap, bound {6 * MOST}"
    (told,) = problems(spent(CAP + 2, losses=1), exported_usd=1e-9)
    assert "told bound" in told


def test_a_refusal_with_money_left_is_told() -> None:
    (told,) = problems(spent(CAP - MOST))
    assert told == f"lessee-00: refused with {MOST} nano-USD left"


def test_books_that_differ_are_told_and_so_are_caps_that_nobody_has_spent() -> None:
    assert len(problems(spent(CAP), counted=CAP - 1)) == 1
    assert problems(spent(5, whole=False)) == ["only 0 of the 1 caps that were begun were spent by leases"]
