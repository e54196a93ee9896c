"""Any size: what the networks do not divide is made larger and cut, what is given with it, and
small clips have the noise of large ones."""

import dataclasses

import numpy as np
import pytest

from sora_jax.diffusion.times import TimesConfig
from sora_jax.sample import tasks
from sora_jax.sample.denoise import SamplingConfig
from sora_jax.sample.generate import Sampler
from sora_jax.sample.requests import Request, RequestError
from sora_jax.sample.sizes import divisible, smaller
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_models import tiny_sampler

PLAIN = Request("a red circle", frames=5, height=16, width=24, fps=8.0, seed=3)
ODD = dataclasses.replace(PLAIN, frames=7, height=13, width=22)


def make_sampler(devices: int = 1, **mesh: int) -> Sampler:
    config = SamplingConfig(steps=3, rows=4)
    return tiny_sampler(
        ("a red circle",), config, TimesConfig(base_tokens=8), devices, MeshConfig(**mesh)
    )


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return make_sampler()


def video(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (frames, height, width, 3), np.uint8)


def test_what_was_asked_is_cut_out_of_the_next_size_that_is_divided(sampler: Sampler) -> None:
    larger = dataclasses.replace(PLAIN, frames=9)
    odd, even = sampler.generate([ODD, larger])
    np.testing.assert_array_equal(odd.video, even.video[:7, :13, :22])
    assert (odd.request, odd.made_at, even.made_at) == (ODD, (9, 16, 24), None)


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((240, 1080, 1920), (241, 1088, 1920)),
        ((1, 2048, 2048), (1, 2048, 2048)),
        ((1440, 1920, 1080), (1441, 1920, 1088)),
        ((2, 1, 1), (5, 16, 16)),
    ],
)
def test_sizes_are_the_next_ones(asked: tuple[int, ...], made: tuple[int, ...]) -> None:
    frames, height, width = asked
    request = dataclasses.replace(PLAIN, frames=frames, height=height, width=width)
    found = divisible(dataclasses.replace(request, noise_of=asked), temporal=4, cell=16)
    assert (found.frames, found.height, found.width) == found.noise_of == made


def test_what_is_given_has_its_edges_repeated() -> None:
    given, beside = video(7, 13, 22), video(1, 13, 22)
    edited = tasks.edit_box(ODD, given, (4, 13, 0, 20), is_outside=True)
    clip = tasks.Beside(beside, 0.5)
    made = divisible(dataclasses.replace(edited, beside=(clip,)), temporal=4, cell=8)
    assert made.given is not None
    np.testing.assert_array_equal(made.given[:7, :13, :22], given)
    np.testing.assert_array_equal(made.given[8, 15, 23], given[6, 12, 21])
    assert made.given.shape == (9, 16, 24, 3)
    assert made.beside[0].video.shape == (1, 16, 24, 3)
    assert made.box == (4, 16, 0, 20)  # what touches the edge goes on to the new one
    kept = divisible(tasks.extend(ODD, given, 5), temporal=4, cell=8)
    assert (kept.given_frames, kept.kept_frames) == (5, 5)  # frames that stay are not repeated


@pytest.mark.parametrize("name", ["animate", "connect", "edit", "edit_box", "turn_into"])
def test_tasks_are_done_at_sizes_that_are_not_divided(sampler: Sampler, name: str) -> None:
    given = video(7, 13, 22)
    request = {
        "animate": tasks.animate(ODD, given[0]),
        "connect": tasks.connect(ODD, given, given, 1),
        "edit": tasks.edit(ODD, given, 0.5),
        "edit_box": tasks.edit_box(ODD, given, (0, 8, 0, 8)),
        "turn_into": tasks.turn_into(ODD, given, given, strength=0.5, latent_frames=2),
    }[name]
    [sample] = sampler.generate([request])
    assert sample.video.shape == given.shape
    assert sample.made_at == (9, 16, 24)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (dataclasses.replace(ODD, frames=0), "1 or 5 frames would work"),
        (dataclasses.replace(ODD, height=0), "a height of 8 would work"),
        (tasks.animate(ODD, video(1, 16, 24)[0]), "16 x 24 pixels .* the clip is 13 x 22"),
        (tasks.extend(ODD, video(6, 13, 22), 3), "3 frames cannot be given; 1 would work"),
        (tasks.edit_box(ODD, video(7, 13, 22), (0, 14, 0, 8)), "inside a picture of 13 x 22"),
        (dataclasses.replace(PLAIN, noise_of=(5, 16, 16)), "too little for one of 5 frames of 16"),
        (dataclasses.replace(PLAIN, noise_of=(5, 0, 24)), "a height of 8 would work"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_sentence(
    sampler: Sampler, request_: Request, sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        sampler.generate([request_])


def test_a_small_clip_has_the_noise_of_the_large_one_and_what_is_given_of_it() -> None:
    large = tasks.edit_box(ODD, video(7, 13, 22), (2, 13, 5, 22))
    small = smaller(large, 2)
    assert (small.frames, small.height, small.width) == (7, 6, 11)
    assert small.noise_of == (7, 13, 22)
    assert small.box == (0, 6, 2, 11)
    assert small.given is not None
    assert small.given.shape == (7, 6, 11, 3)
    assert abs(small.given.mean() - video(7, 13, 22).mean()) < 5
    for factor in (0.5, 30, float("nan")):
        with pytest.raises(RequestError, match="give a factor from 1 on"):
            smaller(large, factor)


@pytest.mark.parametrize("method", ["euler", "sde"])
def test_noise_of_its_own_size_makes_the_same_clip(method: str) -> None:
    config = SamplingConfig(steps=3, rows=4, method=method)
    sampler = tiny_sampler(("a red circle",), config, TimesConfig(base_tokens=8))
    plain, own, other = sampler.generate(
        [PLAIN, *(dataclasses.replace(PLAIN, noise_of=(5, h, 24)) for h in (16, 32))]
    )
    np.testing.assert_array_equal(own.video, plain.video)
    assert abs(other.video.astype(int) - plain.video).max() > 3


def test_a_small_clip_is_the_same_on_a_mesh(sampler: Sampler) -> None:
    requests = [smaller(dataclasses.replace(PLAIN, height=32, seed=s), 2) for s in range(2)]
    spread = make_sampler(8, replica=2, fsdp=2, context=2).generate(requests)
    for one, other in zip(sampler.generate(requests), spread, strict=True):
        assert abs(one.video.astype(int) - other.video).max() <= 1
