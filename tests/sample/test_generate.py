"""Sampling: given frames, sizes, and noise that follows the seed wherever a clip is made."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.diffusion.times import TimesConfig
from sora_jax.models.latents import encode_tokens, grid_of
from sora_jax.models.vae import to_uint8, to_unit
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sample.requests import Request, RequestError
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_models import tiny_sampler

TIMES = TimesConfig(base_tokens=8)
CONFIG = SamplingConfig(steps=4, rows=8)
PROMPTS = ("a red circle", "a blue square moves left", "two green stars", "a white cross falls")


def make_sampler(devices: int, config: SamplingConfig = CONFIG, **mesh: int) -> Sampler:
    return tiny_sampler(PROMPTS, config, TIMES, devices, MeshConfig(**mesh))


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return make_sampler(devices=1)


def request(number: int, **changes: object) -> Request:
    plain = Request(PROMPTS[number % 4], frames=5, height=16, width=24, fps=8.0, seed=100 + number)
    return dataclasses.replace(plain, **changes)


def picture(frames: int = 1, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (frames, height, width, 3), np.uint8)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal up to the rounding of a float that stood on the border between two levels."""
    return one.shape == other.shape and abs(one.astype(int) - other.astype(int)).max() <= 1


def tokens_of(sampler: Sampler, requests: list[Request]) -> np.ndarray:
    """Tokens of the clips, before they become pixels."""
    vae, size = sampler.models.vae, sampler.size_of(requests[0])
    count = grid_of(vae, size.frames, size.height, size.width, sampler.models.patch).tokens
    return np.asarray(sampler.tokens(requests))[:, :count]


def test_a_seed_gives_the_same_sample_on_any_devices_and_in_any_batch(sampler: Sampler) -> None:
    eight = make_sampler(devices=8)
    requests = [request(0, seed=seed) for seed in range(5, 13)]
    one = tokens_of(sampler, requests)
    np.testing.assert_allclose(tokens_of(eight, requests), one, atol=1e-5)
    np.testing.assert_allclose(tokens_of(sampler, requests[::-1])[::-1], one, atol=1e-5)
    np.testing.assert_allclose(tokens_of(sampler, requests[2:3]), one[2:3], atol=1e-5)
    assert abs(one[0] - one[1]).max() > 0.1  # and another seed another one


def test_batches_of_mixed_sizes_come_back_in_order(sampler: Sampler) -> None:
    requests = [request(i, frames=(1, 5)[i % 2], width=(24, 16)[i % 3 == 0]) for i in range(7)]
    samples = sampler.generate(requests)
    assert [sample.request for sample in samples] == requests
    for asked, sample in zip(requests, samples, strict=True):
        assert sample.video.shape == (asked.frames, 16, asked.width, 3)
        assert same(sampler.generate([asked])[0].video, sample.video)


def test_a_last_batch_that_is_not_full_changes_nothing(sampler: Sampler) -> None:
    requests = [request(i) for i in range(5)]
    small = make_sampler(devices=1, config=dataclasses.replace(CONFIG, rows=3))
    for one, other in zip(sampler.generate(requests), small.generate(requests), strict=True):
        assert same(one.video, other.video)


def test_eight_devices_make_fewer_clips_than_devices() -> None:
    one, eight = make_sampler(devices=1), make_sampler(devices=8)
    requests = [request(0), request(1), request(2)]
    for alone, spread in zip(one.generate(requests), eight.generate(requests), strict=True):
        assert same(alone.video, spread.video)


def test_one_clip_is_split_over_eight_devices(sampler: Sampler) -> None:
    config = dataclasses.replace(CONFIG, rows=1, chunk=1)
    eight = make_sampler(devices=8, config=config, fsdp=1, context=8)
    tokens = eight.tokens([request(0)])
    assert tokens.shape[1] == 16  # twelve, and padding that eight devices divide
    np.testing.assert_allclose(tokens[:, :12], tokens_of(sampler, [request(0)]), atol=1e-5)
    for asked in (request(0), request(1, frames=9, given=picture(5))):
        [alone], [split] = sampler.generate([asked]), eight.generate([asked])
        assert same(alone.video, split.video)


def test_the_caption_reaches_the_clip_through_guidance() -> None:
    requests = [request(0), request(0, prompt=PROMPTS[1])]
    for guidance, alike in ((0.0, True), (1.0, False), (4.0, False)):
        config = dataclasses.replace(CONFIG, guidance=guidance)
        one, other = make_sampler(devices=1, config=config).generate(requests)
        assert np.array_equal(one.video, other.video) == alike


@pytest.mark.parametrize("given_frames", [1, 5])
def test_given_frames_are_kept(sampler: Sampler, given_frames: int) -> None:
    given = picture(given_frames)
    sample = sampler.generate([request(0, frames=9, given=given)])[0]
    vae = sampler.models.vae
    mean, _ = vae.encode(to_unit(jnp.asarray(given)[None]))
    assert same(sample.video[:given_frames], np.asarray(to_uint8(vae.decode(mean)))[0])
    free = sampler.generate([request(0, frames=9)])[0]
    assert not same(free.video[given_frames:], sample.video[given_frames:])


def test_given_tokens_never_move(sampler: Sampler) -> None:
    given, models = picture(5), sampler.models
    whole = jnp.concatenate([given, picture(4)])[None]  # whatever follows: the encoder is causal
    encoded = encode_tokens(models.vae, models.statistics, whole, models.patch)
    tokens = tokens_of(sampler, [request(0, frames=9, given=given)])
    np.testing.assert_allclose(tokens[:, :12], encoded[:, :12], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"given": picture(1, 16, 16)}, "16 x 16 pixels .* the clip is 16 x 24"),
        ({"given": picture(3)}, "3 frames cannot be given; 1 would work"),
        ({"given": picture(5)}, "5 of 5 frames are given"),
        ({"given": picture(1)[0]}, "give uint8"),
        ({"fps": 0.0}, "fps 0.0"),
        ({"seed": -1}, "seed -1"),
        ({"frames": 0}, "1 or 5 frames"),
    ],
)
def test_a_request_that_cannot_be_made_is_refused_in_a_sentence(
    sampler: Sampler, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        sampler.generate([request(1), request(0, **changes)])


def test_a_prompt_that_is_too_long_is_marked(sampler: Sampler) -> None:
    long = request(0, prompt=" and ".join(PROMPTS))
    assert [s.prompt_is_cut for s in sampler.generate([request(0), long])] == [False, True]
