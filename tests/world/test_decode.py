"""The decoder reads what is there, through a codec's losses too, and admits what it cannot tell."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from sora_jax.world.caption import facts
from sora_jax.world.decode import decode
from sora_jax.world.dynamics import simulate
from sora_jax.world.render import render
from sora_jax.world.scene import Scene, WorldConfig, make_body
from sora_jax.world.source import WorldSource

Loss = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SIZES = ((32, 32), (24, 40), (40, 24))
FULL = WorldConfig(motions=("still", "constant", "gravity"), camera_pan=0.3)
DEMO = WorldConfig(max_objects=2, shapes=("circle", "square", "triangle"), motions=("constant",))


def to_bytes(video: np.ndarray) -> np.ndarray:
    return np.clip(video + 0.5, 0, 255).astype(np.uint8)


def nothing(video: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return video


def blur(video: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    soft = gaussian_filter(video.astype(float), (0, 0.6, 0.6, 0))
    return to_bytes(soft + 0.03 * 255 * generator.standard_normal(video.shape))


def strong_blur(video: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return to_bytes(gaussian_filter(video.astype(float), (0, 0.9, 0.9, 0)))


def blocks(video: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Of each block's 8 x 8 cosines, the 15 of lowest frequency."""
    t, h, w, _ = video.shape
    parts = dctn(video.reshape(t, h // 8, 8, w // 8, 8, 3) / 1.0, axes=(2, 4), norm="ortho")
    kept = np.add.outer(np.arange(8), np.arange(8)) < 5
    parts *= kept[None, None, :, None, :, None]
    return to_bytes(idctn(parts, axes=(2, 4), norm="ortho").reshape(video.shape))


def trail(video: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Each frame with a fifth of the one before."""
    before = np.concatenate([video[:1], video[:-1]])
    return blur(to_bytes(0.8 * video + 0.2 * before), generator)


class Score:
    """Shares of right readings, and the errors of places and velocities, over many clips."""

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.all: Counter[str] = Counter()
        self.pixels_off: list[float] = []
        self.velocities_off: list[float] = []

    def add(self, source: WorldSource, index: int, loss: Loss) -> None:
        scene = source.scene(index)
        video = loss(source[index].video, np.random.default_rng(index))
        decoded = decode(video, source.fps)
        positions = simulate(scene, np.arange(source.frames) / source.fps).positions
        truth = facts(scene, source.frames == 1)
        self.mark("count", decoded.count == len(truth))
        for body, fact, path in zip(scene.bodies, truth, positions.transpose(1, 0, 2), strict=True):
            found = [thing for thing in decoded.objects if thing.colour == fact.colour]
            self.mark("colour", len(found) == 1)
            for name in ("shape", "size", "movement", "direction", "speed"):
                right = len(found) == 1 and getattr(found[0], name) == getattr(fact, name)
                self.mark(name, right)
            if found:
                off = np.linalg.norm(found[0].centroids - path, axis=-1)
                self.pixels_off.append(float(np.nanmean(off)) * np.sqrt(video[0, ..., 0].size))
            if found and found[0].velocity is not None and fact.speed is not None:
                velocity = np.array(body.velocity)
                off = np.linalg.norm(found[0].velocity - velocity) / np.linalg.norm(velocity)
                self.velocities_off.append(float(off))

    def mark(self, name: str, right: bool) -> None:
        self.all[name] += 1
        self.right[name] += right

    def worst(self) -> float:
        return min(self.right[name] / number for name, number in self.all.items())


def score(
    config: WorldConfig, sizes: tuple[tuple[int, int], ...], frames: int, clips: int, loss: Loss
) -> Score:
    total = Score()
    for height, width in sizes:
        source = WorldSource(config, frames, height, width, 8.0, range(5000, 5000 + clips))
        for index in range(clips):
            total.add(source, index, loss)
    return total


def test_renders_are_read_right() -> None:
    total = score(FULL, (*SIZES, (64, 64), (48, 96), (120, 90)), 9, 20, nothing)
    assert total.worst() >= 0.99
    assert np.mean(total.pixels_off) < 0.15
    assert np.mean(total.velocities_off) < 0.03


@pytest.mark.parametrize("frames", [1, 5])
def test_images_and_short_clips_are_read_right(frames: int) -> None:
    total = score(DEMO, SIZES, frames, 25, nothing)
    assert total.worst() >= 0.99


def test_frame_rates_do_not_matter() -> None:
    for fps, frames in ((4.0, 5), (24.0, 25)):
        source = WorldSource(FULL, frames, 32, 32, fps, range(20))
        total = Score()
        for index in range(20):
            total.add(source, index, nothing)
        assert total.worst() >= 0.95


@pytest.mark.parametrize(("loss", "least"), [(nothing, 0.99), (blur, 0.97), (blocks, 0.95)])
def test_swings_are_read_and_nothing_else_is_read_as_one(loss: Loss, least: float) -> None:
    swinging = dataclasses.replace(DEMO, sizes=("large",), free_time=0.75, swing=1.0)
    total = score(swinging, SIZES, 17, 10, loss)
    assert total.worst() >= least
    for config in (DEMO, FULL, WorldConfig(free_time=0.1)):  # bodies that bounce early and late
        clips = WorldSource(config, 33, 32, 32, 8.0, range(20))
        lossy = (loss(clip.video, np.random.default_rng(n)) for n, clip in enumerate(clips))
        read = [each.movement for video in lossy for each in decode(video, 8.0).objects]
        assert read
        assert "swings" not in read


@pytest.mark.parametrize("loss", [blur, strong_blur, blocks, trail])
def test_reconstructions_are_read_right(loss: Loss) -> None:
    total = score(DEMO, SIZES, 9, 20, loss)
    assert total.worst() >= 0.97
    assert np.mean(total.pixels_off) < 0.35
    assert score(FULL, SIZES, 9, 10, loss).worst() >= 0.95


def clips() -> list[np.ndarray]:
    source = WorldSource(DEMO, 9, 32, 32, 8.0, range(20))
    return [clip.video for clip in source]


def noise(scale: float, level: float) -> np.ndarray:
    """Smooth noise about a grey level."""
    rough = np.random.default_rng(0).standard_normal((9, 32, 32, 3))
    return to_bytes(255 * (level + scale * gaussian_filter(rough, (1, 3, 3, 0))))


@pytest.mark.parametrize(
    "video",
    [
        np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)).astype(np.uint8),
        noise(3.0, 0.5),
        noise(2.0, 0.2),
        np.full((9, 32, 32, 3), 128, np.uint8),
        np.full((9, 32, 32, 3), 255, np.uint8),
    ],
    ids=["noise", "bright smooth noise", "dark smooth noise", "grey", "white"],
)
def test_garbage_is_undefined(video: np.ndarray) -> None:
    decoded = decode(video, 8.0)
    assert decoded.count is None
    assert decoded.objects == ()


def test_an_empty_dark_clip_has_no_objects() -> None:
    assert decode(np.full((9, 32, 32, 3), 35, np.uint8), 8.0).count == 0


def test_objects_that_do_not_last_are_not_counted() -> None:
    for video in clips():
        gone = video.copy()
        gone[5:] = 35
        fading = np.linspace(1, 0, 9)[:, None, None, None]
        for broken in (gone, to_bytes(video * fading + 35 * (1 - fading))):
            decoded = decode(broken, 8.0)
            assert decoded.count is None
            assert decoded.objects == ()


def test_half_faded_and_half_mixed_objects_are_undefined() -> None:
    videos = clips()
    for video, other in pairwise(videos):
        assert decode(to_bytes(0.5 * video + 0.5 * 35), 8.0).count is None
        assert decode(to_bytes(0.5 * video + 0.5 * other), 8.0).count is None


def test_a_cut_to_other_colours_has_no_count() -> None:
    for video, other in pairwise(clips()):
        colours = [{thing.colour for thing in decode(clip, 8.0).objects} for clip in (video, other)]
        if colours[0] != colours[1]:
            assert decode(np.concatenate([video[:4], other[4:]]), 8.0).count is None


def test_shuffled_frames_have_no_steady_motion() -> None:
    order = [4, 0, 7, 2, 8, 1, 6, 3, 5]
    for video in clips():
        assert all(thing.movement is None for thing in decode(video[order], 8.0).objects)


def test_a_frozen_clip_rests() -> None:
    for video in clips():
        decoded = decode(np.repeat(video[:1], 9, axis=0), 8.0)
        assert {(thing.movement, thing.direction) for thing in decoded.objects} == {("rests", None)}


def test_one_bad_frame_of_nine_is_forgiven_and_told() -> None:
    video = clips()[0]
    whole = decode(video, 8.0)
    video[3] = 128
    decoded = decode(video, 8.0)
    assert decoded.count == whole.count
    assert decoded.counts[3] is None
    assert np.isnan(decoded.objects[0].centroids[3]).all()
    assert decoded.objects[0].direction == whole.objects[0].direction


def test_ghosts_and_specks_are_not_objects() -> None:
    for video in clips():
        expected = decode(video, 8.0).count
        ghost = np.roll(video, 12, axis=2) * 0.3
        assert decode(to_bytes(np.maximum(video, ghost)), 8.0).count == expected
        speck = video.copy()
        speck[:, :3, :3] = (240, 30, 30)
        assert decode(speck, 8.0).count == expected


def test_two_objects_of_one_colour_are_two() -> None:
    bodies = (
        make_body("circle", "red", "medium", (0.25, 0.2), (0.25, 0.0)),
        make_body("circle", "red", "medium", (0.75, 0.8), (-0.25, 0.0)),
    )
    scene = Scene(bodies, 0.0, (1.0, 1.0), 3, 0.05, (0.0, 0.0), 0)
    decoded = decode(render(scene, 9, 32, 32, 8.0), 8.0)
    assert decoded.count == 2
    assert sorted(thing.direction or "" for thing in decoded.objects) == ["left", "right"]
    assert all(thing.shape == "circle" for thing in decoded.objects)


def test_velocity_is_that_of_the_beginning_not_of_after_the_bounce() -> None:
    body = make_body("circle", "green", "small", (0.66, 0.5), (0.5, 0.0))
    scene = Scene((body,), 0.0, (1.0, 1.0), 3, 0.05, (0.0, 0.0), 0)
    (thing,) = decode(render(scene, 17, 32, 32, 8.0), 8.0).objects
    assert (thing.movement, thing.direction, thing.speed) == ("moves", "right", "fast")
    assert thing.velocity == pytest.approx((0.5, 0.0), abs=0.03)


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got a float64 array of shape \(9, 32, 32, 3\)"):
        decode(np.zeros((9, 32, 32, 3)), 8.0)
