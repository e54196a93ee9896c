"""Tasks by name: what each gives, what comes out of it, and what cannot be asked."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.diffusion.guidance import GuidanceConfig
from sora_jax.diffusion.patterns import FAR_SECONDS
from sora_jax.diffusion.times import TimesConfig
from sora_jax.models.vae import to_uint8, to_unit
from sora_jax.sample import tasks
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sample.requests import MAX_PARTS, Beside, Request, RequestError
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_models import tiny_sampler

PROMPT = "a red circle"
PLAIN = Request(PROMPT, frames=13, height=16, width=24, fps=8.0, seed=3)
Task = Callable[[Request], Request]


def pictures(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 16, 24, 3), np.uint8)


VIDEO, OTHER = pictures(13), pictures(13, seed=1)
TASKS: dict[str, Task] = {
    "generate": tasks.generate,
    "animate": lambda r: tasks.animate(r, VIDEO[0]),
    "extend": lambda r: tasks.extend(r, VIDEO, 5),
    "extend_backward": lambda r: tasks.extend_backward(r, VIDEO, 5),
    "connect": lambda r: tasks.connect(r, VIDEO, OTHER, 5),
    "turn_into": lambda r: tasks.turn_into(r, VIDEO, OTHER, strength=0.8, latent_frames=4),
    "loop": lambda r: tasks.loop(r, VIDEO, 5),
    "edit": lambda r: tasks.edit(r, VIDEO, 0.5),
    "edit_box": lambda r: tasks.edit_box(r, VIDEO, (0, 8, 8, 16)),
    "edit_span": lambda r: tasks.edit_span(r, VIDEO, 5, 8),
    "interpolate": lambda r: tasks.interpolate(r, {0.0: VIDEO[0], 0.5: VIDEO[4], 1.5: VIDEO[12]}),
    "remember": lambda r: tasks.remember(r, [OTHER[:1], OTHER[:5]]),
}


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    config = SamplingConfig(steps=2, rows=1)
    return tiny_sampler([PROMPT], config, TimesConfig(base_tokens=8))


def through(sampler: Sampler, video: np.ndarray) -> np.ndarray:
    """A video through the autoencoder: what is given looks like that at best."""
    vae = sampler.models.vae
    return np.asarray(to_uint8(vae.decode(vae.encode(to_unit(jnp.asarray(video)[None]))[0])))[0]


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    """Up to the rounding of a float that stood on the border between two levels."""
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


@pytest.mark.parametrize("name", TASKS)
def test_each_task_says_what_it_is_and_makes_a_clip(sampler: Sampler, name: str) -> None:
    request = TASKS[name](PLAIN)
    assert request.task == name
    [sample] = sampler.generate([request])
    assert sample.video.shape == (13, 16, 24, 3)
    kept = request.kept_frames
    if kept and not inside_clip(request):
        assert request.given is not None
        assert_same(sample.video[:kept], through(sampler, request.given[:kept]))


def inside_clip(request: Request) -> list[Beside]:
    return [clip for clip in request.beside if clip.seconds >= 0]


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("extend_backward", {8: VIDEO[:5]}),
        ("connect", {0: VIDEO[-5:], 8: OTHER[:5]}),
        ("loop", {0: VIDEO[-5:], 8: VIDEO[:5]}),
        ("edit_span", {0: VIDEO[:5], 8: VIDEO[8:]}),
        ("interpolate", {0: VIDEO[:1], 4: VIDEO[4:5], 12: VIDEO[12:]}),
    ],
)
def test_what_a_clip_is_filled_in_between_is_kept_to_the_pixel(
    sampler: Sampler, name: str, whole: dict[int, np.ndarray]
) -> None:
    video = sampler.generate([TASKS[name](PLAIN)])[0].video
    is_made = np.ones(13, bool)
    for at, frames in whole.items():
        np.testing.assert_array_equal(video[at : at + len(frames)], frames)
        is_made[at : at + len(frames)] = False
    assert (video[is_made] != VIDEO[is_made]).any()


def test_a_key_frame_between_two_frames_or_in_another_shot_replaces_none(sampler: Sampler) -> None:
    for request in (tasks.interpolate(PLAIN, {0.55: VIDEO[4]}), TASKS["remember"](PLAIN)):
        video = sampler.generate([request])[0].video
        for clip in request.beside:
            assert not (video == clip.video[0]).all((1, 2, 3)).any()


@pytest.mark.parametrize("name", ["animate", "remember"])
def test_without_a_caption_a_clip_is_guided_by_what_is_given(name: str) -> None:
    """In one batch with a clip that has a caption, and is guided by that."""

    def tokens(guidance: float | GuidanceConfig, *prompts: str) -> np.ndarray:
        config = SamplingConfig(steps=2, rows=len(prompts), guidance=guidance)
        made = tiny_sampler([PROMPT], config, TimesConfig(base_tokens=8))
        plain = [dataclasses.replace(PLAIN, prompt=prompt) for prompt in prompts]
        return np.asarray(made.tokens([TASKS[name](each) for each in plain]))

    both, text = tokens(3.0, PROMPT, ""), tokens(GuidanceConfig(3.0), PROMPT)
    history = tokens(GuidanceConfig(1.0, history=3.0), "")
    np.testing.assert_allclose(both[0], text[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(both[1], history[0], rtol=1e-4, atol=1e-4)
    assert np.abs(both[1] - tokens(1.0, "")[0]).max() > 1e-2


@pytest.fixture(scope="module")
def over_eight() -> Sampler:
    """The same networks with rows, parameters and tokens split over two devices each."""
    config = SamplingConfig(steps=2, rows=4)
    mesh = MeshConfig(replica=2, fsdp=2, context=2, tensor=1)
    return tiny_sampler([PROMPT], config, TimesConfig(base_tokens=8), 8, mesh)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_the_same_on_eight_devices(
    sampler: Sampler, over_eight: Sampler, name: str
) -> None:
    requests = [dataclasses.replace(TASKS[name](PLAIN), seed=seed) for seed in range(4)]
    expected, found = (np.asarray(each.tokens(requests)) for each in (sampler, over_eight))
    own = slice(0, 24)  # 4 latent frames of 2 x 3 patches
    np.testing.assert_allclose(found[:, own], expected[:, own], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "given", "beside"),
    [
        ("animate", 1, []),
        ("extend", 5, []),
        ("extend_backward", 0, [(5, 1.0)]),
        ("connect", 5, [(5, 1.0)]),
        ("loop", 5, [(5, 1.0)]),
        ("edit_span", 5, [(5, 1.0)]),
        ("interpolate", 1, [(1, 0.5), (1, 1.5)]),
        ("remember", 0, [(1, -FAR_SECONDS), (5, -FAR_SECONDS)]),
    ],
)
def test_frames_are_given_at_their_times(
    name: str, given: int, beside: list[tuple[int, float]]
) -> None:
    request = TASKS[name](PLAIN)
    assert request.kept_frames == given
    assert [(len(clip.video), clip.seconds) for clip in request.beside] == beside


def test_what_is_given_beside_a_clip_matters(sampler: Sampler) -> None:
    made = [
        sampler.generate([tasks.extend_backward(PLAIN, video, 5)])[0].video
        for video in (VIDEO, OTHER)
    ]
    free = sampler.generate([PLAIN])[0].video
    assert np.abs(made[0].astype(int) - made[1]).max() > 3
    assert np.abs(made[0].astype(int) - free).max() > 3


def test_strength_goes_from_the_video_itself_to_the_caption_alone(sampler: Sampler) -> None:
    at = [sampler.generate([tasks.edit(PLAIN, VIDEO, s)])[0].video for s in (0.0, 0.3, 0.8, 1.0)]
    known = through(sampler, VIDEO)
    assert_same(at[0], known)
    assert_same(at[3], sampler.generate([PLAIN])[0].video)
    distances = [np.abs(video.astype(float) - known).mean() for video in at]
    assert distances == sorted(distances)


@pytest.mark.parametrize("is_outside", [False, True])
def test_only_tokens_of_the_box_are_made(sampler: Sampler, is_outside: bool) -> None:
    """Of 2 x 3 patches; the box cuts through a column, which is made either way."""
    request = tasks.edit_box(PLAIN, VIDEO, (0, 8, 4, 16), is_outside=is_outside)
    tokens = np.asarray(sampler.tokens([request]))[0].reshape(4, 2, 3, -1)
    inputs = sampler.inputs(sampler.size_of(request), [request])
    known = np.asarray(inputs.known)[0].reshape(4, 2, 3, -1)
    stays = ~np.any(tokens != known, (0, 3))
    box = np.array([[1, 1, 0], [0, 0, 0]], bool)
    expected = np.array([[0, 1, 0], [0, 0, 0]], bool) if is_outside else ~box
    np.testing.assert_array_equal(stays, expected)
    video = sampler.generate([request])[0].video
    is_made = np.full((16, 24), is_outside)
    is_made[0:8, 4:16] = not is_outside
    np.testing.assert_array_equal(video[:, ~is_made], VIDEO[:, ~is_made])
    assert (video[:, is_made] != VIDEO[:, is_made]).any()


def test_turning_is_strongest_halfway_and_ends_as_the_videos_do() -> None:
    request = TASKS["turn_into"](PLAIN)
    assert request.given is not None
    np.testing.assert_array_equal(request.given[[0, -1]], [VIDEO[0], OTHER[-1]])
    # Frames 0 | 1-4 | 5-8 | 9-12 of 13: the fade is 0, .13, .56 and .94 on average.
    expected = 0.8 * np.sin(np.pi * np.array([0.0, 0.12731, 0.56019, 0.9375]))
    np.testing.assert_allclose(request.start_levels, expected, atol=1e-4)


def test_a_long_turn_has_as_many_parts_as_there_may_be_and_none_without_frames() -> None:
    white = np.full((65, 16, 24, 3), 255, np.uint8)
    clip = dataclasses.replace(PLAIN, frames=65)
    request = tasks.turn_into(clip, 0 * white, white, strength=1.0, latent_frames=17)
    assert len(request.start_levels) == MAX_PARTS
    assert np.argmax(request.start_levels) == MAX_PARTS // 2
    assert request.given is not None
    assert (np.diff(request.given[:, 0, 0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (lambda r: tasks.extend(r, VIDEO[:3], 5), "5 frames are to be given of a video of 3"),
        (lambda r: tasks.extend(r, VIDEO, 13), "13 of 13 frames are given"),
        (lambda r: tasks.connect(r, VIDEO, OTHER, 9), "18 of 13 frames are given"),
        (lambda r: tasks.extend(r, VIDEO, 4), "4 frames cannot be given; 1 would work"),
        (lambda r: tasks.edit(r, VIDEO[:9], 0.5), "9 frames are given for a clip of 13"),
        (lambda r: tasks.edit(r, VIDEO, 1.5), "must be from 0 to 1"),
        (lambda r: tasks.edit_box(r, VIDEO, (0, 8, 8, 40)), "is not inside a picture of 16 x 24"),
        (lambda r: tasks.edit_span(r, VIDEO, 6, 3), "frames 6 to 3 of a video of 13"),
        (lambda r: tasks.edit_span(r, VIDEO, 4, 8), "4 frames cannot be given; 1 would work"),
        (lambda r: tasks.interpolate(r, {9.0: VIDEO[0]}), "not in a clip from 0 to 1.500 s"),
        (lambda r: tasks.animate(r, VIDEO[0][:8]), "8 x 24 pixels"),
        (
            lambda r: tasks.turn_into(r, VIDEO, OTHER[:9], strength=0.5, latent_frames=4),
            "the second video has 9 frames",
        ),
        (
            lambda r: tasks.turn_into(
                dataclasses.replace(r, frames=1), VIDEO[:1], VIDEO[:1], strength=1, latent_frames=1
            ),
            "2 frames or more",
        ),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(
    sampler: Sampler, task: Callable[[Request], Any], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        sampler.generate([task(PLAIN)])


def test_parts_are_no_more_than_latent_frames(sampler: Sampler) -> None:
    request = dataclasses.replace(tasks.edit(PLAIN, VIDEO, 0.5), start_levels=(0.5,) * 5)
    with pytest.raises(RequestError, match="no more than the clip has latent frames"):
        sampler.generate([request])
