"""The cube turns rigidly about its axis, and its picture follows from perspective."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sora_jax.world import cube
from sora_jax.world.scene import HEADING, Direction
from sora_jax.world.splits import IN_DISTRIBUTION, Cell, Split, is_held_out, ood_grid
from sora_jax.world.unmix import find


def sample(seed: int, split: Split = "train", frames: int = 32) -> cube.Cube:
    return cube.sample(seed, frames, 16.0, split, IN_DISTRIBUTION)


def test_corners_turn_as_an_independent_rotation_turns_them() -> None:
    truth = sample(0)
    w, x, y, z = truth.orientation
    body = Rotation.from_quat([x, y, z, w]).apply(truth.half_side * cube.CORNERS)
    space = cube.corners(truth)
    for frame, time in enumerate(np.linspace(0, 1, 32)):
        axis = np.array(cube.AXIS[truth.direction])
        turned = Rotation.from_rotvec(truth.turn * time * axis).apply(body)
        np.testing.assert_allclose(space[frame], turned, atol=1e-12)


def test_a_wobble_is_not_rigid_and_no_wobble_is() -> None:
    def edges(truth: cube.Cube) -> np.ndarray:
        space = cube.corners(truth)
        return np.linalg.norm(space[:, :, None] - space[:, None], axis=-1)

    truth = sample(1)
    assert np.ptp(edges(truth), axis=0).max() < 1e-12
    assert np.ptp(edges(replace(truth, wobble=0.2)), axis=0).max() > 0.05


@pytest.mark.parametrize("direction", cube.DIRECTIONS)
def test_the_nearest_corner_moves_in_the_direction_told(direction: Direction) -> None:
    truth = replace(sample(2), direction=direction)
    nearest = truth.colours.index(cube.nearest_colour(truth))
    step = np.diff(cube.places(truth)[:2, nearest], axis=0)[0]
    assert step @ HEADING[direction] > 0.95 * np.linalg.norm(step)


@pytest.mark.parametrize("size", [32, 64])
def test_uncovered_corners_are_seen_where_they_are(size: int) -> None:
    offs = []
    for seed in range(12):
        truth = sample(seed)
        blobs = find(cube.render(truth, size), truth.colours)
        seen = blobs.present(np.pi * truth.radius**2)
        assert seen.mean() > 0.85
        offs.append(np.linalg.norm(blobs.centroid - cube.places(truth), axis=-1)[seen] * size)
    assert np.median(np.concatenate(offs)) < 0.06


def test_nearer_corners_are_larger_and_cover_farther_ones() -> None:
    truth = replace(sample(0), orientation=(1.0, 0.0, 0.0, 0.0), half_side=0.1, radius=0.12)
    near = cube.CORNERS[:, 2] < 0
    assert cube.radii(truth)[0, near].min() > cube.radii(truth)[0, ~near].max()
    area = find(cube.render(truth, 64), truth.colours).area[0]
    assert area[near].min() > 2 * area[~near].max()


@pytest.mark.parametrize("cell", ood_grid())
def test_every_corner_stays_inside_the_frame(cell: Cell) -> None:
    for seed in range(50):
        truth = cube.sample(seed, 17, 16.0, "train", cell)
        inside = 0.5 - abs(cube.places(truth) - 0.5).max(-1)
        assert (inside > cube.radii(truth)).all()


def test_splits_part_the_nearest_colour_and_the_direction() -> None:
    def pair(truth: cube.Cube) -> tuple[int, int]:
        colour = cube.COLOURS.index(cube.nearest_colour(truth))
        return colour, cube.DIRECTIONS.index(truth.direction)

    assert not any(is_held_out(*pair(sample(seed))) for seed in range(100))
    assert all(is_held_out(*pair(sample(seed, "held_out"))) for seed in range(100))
    assert len({pair(sample(seed)) for seed in range(300)}) == 24  # three quarters of all pairs


def test_captions_tell_the_nearest_corner_and_the_spin() -> None:
    truth = sample(0)
    pace = "slowly" if truth.turn == cube.TURN["slow"] else "fast"
    assert cube.caption(truth) == (
        f"a cube of eight coloured corners, the nearest {cube.nearest_colour(truth)},"
        f" spins {truth.direction} {pace}"
    )
