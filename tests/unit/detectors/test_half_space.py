"""The compact half-space trees against river's own."""

import random

import pytest
from river import anomaly

from spendbrake.detectors.buckets.half_space import HalfSpace, HalfSpaceParams, figure
from spendbrake.detectors.series.features import SHAPE


@pytest.mark.parametrize(("n_trees", "height", "window", "seed"), [(25, 6, 250, 1), (7, 3, 40, 42), (3, 8, 100, 9)])
def test_masses_and_scores_are_rivers_for_the_same_seed(n_trees: int, height: int, window: int, seed: int) -> None:
    ours = HalfSpace(HalfSpaceParams(n_trees=n_trees, height=height, window=window, seed=seed))
    rivers = anomaly.HalfSpaceTrees(n_trees=n_trees, height=height, window_size=window, seed=seed)
    rng = random.Random(seed)

    def point() -> list[float]:
        centre = rng.choice((0.45, 0.5, 0.8))
        return [min(max(rng.gauss(centre, 0.1), 0.0), 1.0) for _ in SHAPE]

    for _ in range(2 * window + window // 2):
        values = point()
        ours.learn_paths(ours.paths(values))
        rivers.learn_one(dict(enumerate(values)))
    for values in [point() for _ in range(200)] + [[0.0] * len(SHAPE), [1.0] * len(SHAPE)]:
        assert 1.0 - ours.mass(ours.paths(values)) == pytest.approx(
            rivers.score_one(dict(enumerate(values))), abs=1e-12
        )


def test_the_layout_is_shared_and_cannot_be_written() -> None:
    one, other = HalfSpace(HalfSpaceParams()), HalfSpace(HalfSpaceParams())
    assert one._layout is other._layout
    with pytest.raises(ValueError, match="read-only"):
        one._layout.threshold[0] = 0.5


def test_a_team_s_trees_fit_in_twenty_kilobytes() -> None:
    detector = HalfSpace(HalfSpaceParams())
    assert detector._reference.nbytes + detector._latest.nbytes <= 20_000


def test_figures_read_like_figures() -> None:
    assert [figure(i, v) for i, v in ((0, 1.0), (1, 0.5), (2, -2.0), (3, 0.013))] == ["10", "50 %", "$0.0100", "1 %"]
