"""Clips of any duration: windows that follow each other, and frames that roll through them."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.diffusion.times import TimesConfig
from sora_jax.models.vae import to_uint8
from sora_jax.sample import tasks
from sora_jax.sample.denoise import (
    SamplingConfig,
    advance_tokens,
    begin_tokens,
    field_at,
    rows_of,
)
from sora_jax.sample.generate import Sampler
from sora_jax.sample.long import LongRequest, Windows, frames_of, window_seed
from sora_jax.sample.requests import Request, RequestError
from sora_jax.sample.stream import decode_chunk
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_models import tiny_sampler

PROMPTS = ("a red circle", "a blue square moves left")
WINDOW = Request(PROMPTS[0], frames=17, height=16, width=24, fps=8.0, seed=3)
LONG = LongRequest(WINDOW, frames=40, context=5, history_level=0.05)
TIMES = TimesConfig(base_tokens=8)


def make_sampler(devices: int = 1, **mesh: int) -> Sampler:
    return tiny_sampler(
        PROMPTS, SamplingConfig(steps=4, rows=1), TIMES, devices, MeshConfig(**mesh)
    )


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return make_sampler()


def asked(levels: int, **changes: Any) -> LongRequest:
    return dataclasses.replace(LONG, levels=levels, **changes)


def made(sampler: Sampler, request: LongRequest) -> np.ndarray:
    return np.concatenate(list(frames_of(sampler, request)))


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize(
    ("levels", "lengths"), [(1, [17, 12, 11]), (3, [9, *[4] * 7, 3])], ids=["windows", "rolling"]
)
def test_frames_come_out_of_windows_as_many_as_are_asked_for(
    sampler: Sampler, levels: int, lengths: list[int]
) -> None:
    assert [len(video) for video in frames_of(sampler, asked(levels))] == lengths


def test_the_first_window_is_the_clip_that_is_asked_for_alone(sampler: Sampler) -> None:
    [alone] = sampler.generate([WINDOW])
    np.testing.assert_array_equal(next(frames_of(sampler, LONG)), alone.video)
    picture = alone.video[0][::-1]
    animated = tasks.animate(WINDOW, picture)
    [alone] = sampler.generate([animated])
    found = next(frames_of(sampler, dataclasses.replace(LONG, first=animated)))
    np.testing.assert_array_equal(found, alone.video)


@pytest.mark.parametrize("levels", [1, 3])
def test_a_size_that_does_not_divide_is_cut_out_of_the_next_one(
    sampler: Sampler, levels: int
) -> None:
    first = dataclasses.replace(WINDOW, height=13, width=20)
    found = made(sampler, asked(levels, first=first))
    np.testing.assert_array_equal(found, made(sampler, asked(levels))[:, :13, :20])
    picture = found[0][::-1]
    animated = tasks.animate(first, picture)
    edges = np.pad(picture, ((0, 3), (0, 4), (0, 0)), mode="edge")
    whole = made(sampler, asked(levels, first=tasks.animate(WINDOW, edges)))
    np.testing.assert_array_equal(made(sampler, asked(levels, first=animated)), whole[:, :13, :20])


@pytest.mark.parametrize("levels", [1, 3])
def test_all_follows_from_the_seed(sampler: Sampler, levels: int) -> None:
    one = made(sampler, asked(levels))
    np.testing.assert_array_equal(one, made(sampler, asked(levels)))
    longer = made(sampler, asked(levels, frames=47))
    np.testing.assert_array_equal(one, longer[:40])
    other = made(sampler, asked(levels, first=dataclasses.replace(WINDOW, seed=4)))
    assert distance(one, other) > 10


def test_windows_have_noise_of_their_own() -> None:
    seeds = [window_seed(seed, number) for seed in (0, 1, 2**31 - 1) for number in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert window_seed(7, 0) == 7


def test_a_window_begins_with_what_was_made_last_with_a_little_noise(sampler: Sampler) -> None:
    windows = Windows(sampler, LONG)
    video, left = windows(0, None)
    request = windows.request(1, left)
    assert request.given is not None
    np.testing.assert_array_equal(request.given, video[-5:])
    size = sampler.size_of(request)
    inputs = sampler.inputs(size, [request])
    field = field_at(inputs, rows_of(sampler.models, inputs, size), jnp.float32(0.6))
    levels = np.asarray(field.per_token())[0].reshape(5, 6)
    np.testing.assert_allclose(levels[:2], 0.05)
    np.testing.assert_allclose(levels[2:], 0.6)


def test_context_and_its_noise_matter(sampler: Sampler) -> None:
    one = made(sampler, LONG)
    for changes in ({"history_level": 0.5}, {"context": 9}):
        other = made(sampler, dataclasses.replace(LONG, **changes))
        np.testing.assert_array_equal(one[:17], other[:17])
        assert distance(one[17:29], other[17:29]) > 1


def test_a_frame_goes_down_from_noise_to_data_through_the_windows(sampler: Sampler) -> None:
    """Each part starts where it ended in the window before, one place further back."""
    windows = Windows(sampler, asked(3))
    levels, given = windows.levels, 2
    assert levels == (0.0, *sorted(levels[1:3]), 1.0)
    first = windows.request(0)
    assert first.start_levels == (1.0,) * 5
    ended = first.arrives_at
    left = windows.begin()
    for number in (1, 2):
        request = windows.request(number, left)
        starts, ends = request.start_levels[given:], request.arrives_at[given:]
        assert starts == (*ended[given + 1 :], 1.0)
        assert all(end < start for end, start in zip(ends, starts, strict=True))
        assert ends[0] == 0
        ended = request.arrives_at


def test_tokens_on_their_way_are_carried_on_as_they_are(sampler: Sampler) -> None:
    windows = Windows(sampler, asked(3))
    _, left = windows(0, None)
    assert left.begun is not None
    request = windows.request(1, left)
    stays = dataclasses.replace(request, end_levels=request.start_levels)
    tokens = np.asarray(sampler.tokens([stays]))[0].reshape(5, 6, -1)
    begun = np.asarray(left.begun).reshape(5, 6, -1)
    np.testing.assert_array_equal(tokens[2:4], begun[2:4])
    assert np.abs(tokens[4] - begun[4]).max() > 0.1  # which is new, and noise
    assert abs(tokens[4].std() - 1) < 0.2


def test_what_comes_out_is_decoded_as_one_clip(sampler: Sampler) -> None:
    """Latents of three windows, put together, through the decoder at once."""
    windows, left = Windows(sampler, asked(3)), None
    latents, videos = [], []
    for number in range(3):
        which = sampler if number == 0 else windows._further
        tokens = np.asarray(which.tokens([windows.request(number, left)]))[0]
        end = slice(0, 3) if number == 0 else slice(2, 3)
        latents.append(windows._latents(tokens, end.start, end.stop - end.start))
        video, left = windows(number, left)
        videos.append(video)
    models = sampler.models
    whole, _ = decode_chunk(models.vae, models.statistics, np.concatenate(latents, 1), None)
    assert distance(np.asarray(whole)[0], np.concatenate(videos)) <= 1
    assert whole.dtype == to_uint8(jnp.zeros(1)).dtype


@pytest.mark.parametrize("levels", [1, 3])
def test_programs_are_the_same_for_any_duration(levels: int) -> None:
    own = make_sampler()
    made(own, asked(levels, frames=31))
    programs = [program._cache_size() for program in (begin_tokens, advance_tokens, decode_chunk)]
    assert min(programs) > 0
    made(own, asked(levels, frames=100))
    after = [program._cache_size() for program in (begin_tokens, advance_tokens, decode_chunk)]
    assert after == programs


@pytest.mark.parametrize("levels", [1, 3])
def test_eight_devices_make_what_one_does(sampler: Sampler, levels: int) -> None:
    """Tokens of a window whose context is the same: rounding to pixels in between may differ."""
    eight = make_sampler(8, fsdp=2, context=4)
    one, other = Windows(sampler, asked(levels)), Windows(eight, asked(levels))
    video, left = one(0, None)
    found, also_left = other(0, None)
    assert distance(found, video) <= 1
    same = dataclasses.replace(also_left, context=left.context)
    assert distance(other(1, same)[0], one(1, left)[0]) <= 1


def test_a_story_goes_on(sampler: Sampler) -> None:
    """At 8 frames a second the windows begin with frames 0, 17 and 29."""
    plain = made(sampler, LONG)
    told = made(sampler, dataclasses.replace(LONG, story=((3.0, PROMPTS[1]),)))
    np.testing.assert_array_equal(told[:29], plain[:29])
    assert distance(told[29:], plain[29:]) > 1
    windows = Windows(sampler, dataclasses.replace(LONG, story=((2.0, "b"), (3.5, "c"))))
    left = windows.begin()
    assert [windows.request(n, left).prompt for n in (1, 2)] == ["b", "c"]


def pictures(frames: int) -> np.ndarray:
    return np.zeros((frames, 16, 24, 3), np.uint8)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frames": 0}, "a clip of 0 frames has none"),
        ({"context": 4}, "4 frames cannot be given to each window of 17: 1 \\+ 4k"),
        ({"context": 17}, "17 frames cannot be given to each window of 17"),
        ({"levels": 2}, "2 noise levels do not divide a window of 17 frames.*: 1, 3 would"),
        ({"levels": 0}, "0 noise levels do not divide"),
        ({"history_level": 1.0}, "noise of level 1.0 on what goes before"),
        ({"story": ((2.0, "a"), (1.0, "b"))}, "prompts take over at \\[2.0, 1.0\\] s"),
        ({"first": tasks.edit(WINDOW, pictures(17), 0.5)}, "goes forward .* cannot edit"),
        ({"first": tasks.extend_backward(WINDOW, pictures(5), 5)}, "cannot extend_backward"),
        ({"first": dataclasses.replace(WINDOW, frames=18)}, "17 or 21 frames would work"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(
    sampler: Sampler, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        next(frames_of(sampler, dataclasses.replace(LONG, **changes)))


def test_parts_cannot_end_above_where_they_start(sampler: Sampler) -> None:
    request = dataclasses.replace(WINDOW, start_levels=(1.0, 0.5), end_levels=(0.0, 0.6))
    with pytest.raises(RequestError, match="cannot end at"):
        sampler.generate([request])
