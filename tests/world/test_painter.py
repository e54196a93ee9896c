"""The square goes as told and leaves its marks; the caption is its actions."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from sora_jax.world import painter
from sora_jax.world.scene import HEADING
from sora_jax.world.splits import IN_DISTRIBUTION, Cell, Split, ood_grid
from sora_jax.world.unmix import find_mixed

COLOURS = (painter.SQUARE, painter.MARK)


def sample(seed: int, split: Split = "train", frames: int = 32) -> painter.Painter:
    return painter.sample(seed, frames, 16.0, split, IN_DISTRIBUTION)


@pytest.mark.parametrize("frames", [17, 32])
@pytest.mark.parametrize("cell", [IN_DISTRIBUTION, *ood_grid()])
@pytest.mark.parametrize("size", [32, 64])
def test_the_square_is_seen_where_it_is(size: int, cell: Cell, frames: int) -> None:
    for seed in range(4):
        truth = painter.sample(seed, frames, 16.0, "train", cell)
        blobs, _ = find_mixed(painter.render(truth, size), COLOURS)
        assert blobs.present(truth.side**2)[:, 0].all()
        assert np.abs(blobs.centroid[:, 0] - painter.path(truth)).max() * size < 0.1


def test_each_action_moves_the_square_for_four_frames() -> None:
    truth = sample(0, frames=17)
    assert len(truth.actions) == 4
    ways = np.diff(painter.path(truth)[::4], axis=0)
    wanted = [np.multiply(4 * truth.step, HEADING[action]) for action in truth.actions]
    np.testing.assert_allclose(ways, wanted, atol=1e-12)


@pytest.mark.parametrize("cell", [IN_DISTRIBUTION, *ood_grid()])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_no_action_leads_out_of_the_frame(split: Split, cell: Cell) -> None:
    for seed in range(50):
        truth = painter.sample(seed, 32, 16.0, split, cell)
        inside = 0.5 - abs(painter.path(truth) - 0.5)
        assert inside.min() >= truth.side / 2 + painter.EDGE - 1e-9


def test_marks_are_where_the_square_has_been_and_stay() -> None:
    truth = sample(3)
    _, shares = find_mixed(painter.render(truth, 64), COLOURS)
    covered = painter.square_cover(painter.path(truth), truth.side, 64)
    for frame in (1, 10, 31):
        marked = covered[:frame].max(0) - covered[frame]
        np.testing.assert_allclose(shares[frame, ..., 1], np.maximum(marked, 0), atol=0.02)
    assert shares[0, ..., 1].max() == 0


def test_marks_may_fade() -> None:
    truth = sample(3)
    _, shares = find_mixed(painter.render(replace(truth, fade=8), 64), COLOURS)
    covered = painter.square_cover(painter.path(truth), truth.side, 64)
    marked = covered[31 - 8 : 31].max(0) - covered[31]
    np.testing.assert_allclose(shares[31, ..., 1], np.maximum(marked, 0), atol=0.02)


def test_splits_part_turns() -> None:
    def turns(truth: painter.Painter) -> set[tuple[str, str]]:
        return set(pairwise(truth.actions))

    held = set(painter.HELD_OUT_TURNS)
    trained = set.union(*(turns(sample(seed)) for seed in range(200)))
    assert len(trained) == 16 - len(held)
    assert not trained & held
    assert all(turns(sample(seed, "held_out")) & held for seed in range(100))


def test_a_counterfactual_starts_alike_and_does_otherwise() -> None:
    for seed in range(30):
        truth = sample(seed)
        other = painter.counterfactual(truth, seed, "train")
        assert replace(other, actions=truth.actions) == truth
        differing = sum(a != b for a, b in zip(truth.actions, other.actions, strict=True))
        assert 2 * differing >= len(truth.actions)
        first = (painter.render(each, 32)[0] for each in (truth, other))
        np.testing.assert_array_equal(*first)


def test_the_caption_is_the_string_of_actions() -> None:
    truth = replace(sample(0), actions=("right", "right", "up"))
    assert painter.caption(truth) == "right right up"
