"""Captions embedded beforehand: written beside latents, trained on, sampled by, and no others."""

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from sora_jax.assemble import dit_run
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.config import ConfigError, load_experiment, override
from sora_jax.data.captions import EmbeddedCaptions, make_embedder
from sora_jax.data.schema import DataError
from sora_jax.data.sources import ClipSet
from sora_jax.encoded import encode_set, reads_embeddings
from sora_jax.experiment import Experiment
from sora_jax.networks import load_run, load_vae, make_sampler
from sora_jax.run_directory import open_directory
from sora_jax.sample.requests import Request
from sora_jax.sharding.mesh import make_mesh
from sora_jax.types import Text

TINY = (
    "text.source=given",
    "text.width=16",
    "data.text_length=6",
    "data.caption_dropout=0.25",
    "vae.widths=(8,)",
    "vae.folds=((4,4),)",
    "vae_stage.training.steps=1",
    "vae_stage.buckets=()",
    "mesh.fsdp=4",
    "mesh.context=2",
    "dit.depth=1",
    "dit_stage.training.steps=2",
    "dit_stage.training.save_every=2",
    "dit_stage.training.evaluate_every=2",
    "sampling.steps=2",
    "data.buckets=(Bucket(frames=5, height=32, width=32),)",
    "data.shape_classes=(ShapeClass(rows=4, tokens=64, clips=2),)",  # two of 32 tokens
)
CLIPS = 12


class Words:
    """Each word of a caption as numbers that no other word has, and a mark at its end."""

    id, width = "words-1", 16

    def __call__(self, captions: Sequence[str]) -> list[np.ndarray]:
        return [np.stack([_of_word(word) for word in (*c.split(), "</s>")]) for c in captions]


def _of_word(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, beside its set and the latents of that."""
    directory = tmp_path_factory.mktemp("captions")
    experiment: Experiment = load_experiment("demo", TINY)
    build_world_set(CLIPS, directory / "set", experiment.data, experiment.world)
    clips, run = ClipSet(directory / "set"), directory / "run"
    open_directory(experiment, clips, run)
    train_stage(experiment, clips, run, "vae")
    mesh = make_mesh(experiment.mesh)
    vae, _, _ = load_vae(experiment, run, mesh)
    embed = make_embedder("tests.test_encoded_captions:Words")
    encode_set(experiment, clips, directory / "latents", mesh, vae, embed)
    train_stage(experiment, ClipSet(directory / "latents"), run, "dit")  # and a preview
    return run


def test_batches_bring_the_embeddings_of_their_captions(run: Path) -> None:
    experiment: Experiment = load_experiment("demo", TINY)
    latents = ClipSet(run.parent / "latents")
    latents.verify()
    assert latents.encoding is not None
    assert (latents.encoding.text_id, latents.encoding.text_width) == ("words-1", 16)
    made = dit_run(experiment, latents, run)
    source = latents.source(experiment.data.buckets[0])
    captions = [source[index].caption for index in range(len(source))]
    every = EmbeddedCaptions(Words()).encode([*captions, ""], 6)
    dropped = 0
    for _ in range(8):
        _, batch = next(made.data)
        assert isinstance(batch.text, Text)
        for row, segments in zip(batch.text.embeddings, batch.text.segments, strict=True):
            same = [np.array_equal(row, each) for each in every.embeddings]
            which = same.index(True)
            np.testing.assert_array_equal(segments, every.segments[which])
            dropped += which == CLIPS
    assert 0 < dropped < 32
    with jax.set_mesh(made.mesh):
        prepared = made.prepare(next(made.data)).batch
    assert prepared.text.embeddings.shape == (4, 12, 16)
    np.testing.assert_array_equal(np.unique(prepared.text.segments), [0, 1, 2])
    made.data.close()


def test_the_run_samples_by_the_same_embedder_and_no_other(run: Path) -> None:
    sampler = make_sampler(load_run(run, embed=Words()))
    requests = [Request(prompt, 5, 32, 32, 8.0, 0) for prompt in ("a red circle", "a blue square")]
    red, blue = sampler.generate(requests)
    assert red.video.shape == (5, 32, 32, 3)
    assert not np.array_equal(red.video, blue.video)
    assert not red.prompt_is_cut
    with pytest.raises(ConfigError, match="embeddings by words-1, and none is given: .* --embed"):
        load_run(run)
    other = Words()
    other.id = "words-2"
    with pytest.raises(ConfigError, match="embeddings by words-1, and words-2 is given"):
        load_run(run, embed=other)


def test_what_a_set_has_no_embeddings_for_is_told(run: Path) -> None:
    experiment: Experiment = load_experiment("demo", TINY)
    latents = ClipSet(run.parent / "latents")
    with pytest.raises(DataError, match="no embeddings of captions: make it with sora encode"):
        dit_run(experiment, ClipSet(run.parent / "set"), run)
    kinds = override(experiment, "data.caption_kinds=(('given', 1.0),)")
    with pytest.raises(ConfigError, match="sets hold embeddings of the first captions alone"):
        reads_embeddings(latents, kinds)
    wider = override(experiment, "text.width=32")
    with pytest.raises(DataError, match="embeddings of captions 16 wide, and text.width is 32"):
        reads_embeddings(latents, wider)
    with pytest.raises(ConfigError, match="'tests:nothing' makes no embedder .*MODULE:FUNCTION"):
        make_embedder("tests:nothing")
    assert dataclasses.replace(latents.manifest, empty_caption=None).id != latents.id
