"""An imported encoder end to end: captions embedded in the step are those embedded beforehand, and
the run is sampled by the same encoder."""

from pathlib import Path

import jax
import numpy as np
import pytest

from sora_jax.assemble import dit_run
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.config import ConfigError, load_experiment, override
from sora_jax.data.schema import DataError
from sora_jax.data.sources import ClipSet
from sora_jax.encoded import captions_read, encode_set
from sora_jax.experiment import Experiment
from sora_jax.networks import load_run, load_vae, make_sampler
from sora_jax.run_directory import open_directory
from sora_jax.sample.requests import Request
from sora_jax.sharding.mesh import make_mesh
from sora_jax.types import Text
from sora_jax.weights.t5 import import_encoder
from sora_jax.weights.text_encoders import EncodedCaptions, ImportedEncoder
from tests.test_encoded_captions import TINY
from tests.tiny_t5 import WIDTH, write_folder

LENGTH = 48  # of the longest captions of these clips, and more
SETTINGS = (*TINY, f"text.width={WIDTH}", f"data.text_length={LENGTH}")
CLIPS = 12


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> ImportedEncoder:
    directory = tmp_path_factory.mktemp("encoder")
    source = write_folder(directory / "source", "t5")
    import_encoder("t5", source, directory / "out", "float32", source)
    return ImportedEncoder(directory / "out")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, embed: ImportedEncoder) -> Path:
    """A run with an autoencoder, beside its set, and sets of its latents with and without
    embeddings."""
    directory = tmp_path_factory.mktemp("run")
    experiment: Experiment = load_experiment("demo", SETTINGS)
    build_world_set(CLIPS, directory / "set", experiment.data, experiment.world)
    clips, run = ClipSet(directory / "set"), directory / "run"
    open_directory(experiment, clips, run)
    train_stage(experiment, clips, run, "vae")
    mesh = make_mesh(experiment.mesh)
    vae, _, _ = load_vae(experiment, run, mesh)
    encode_set(experiment, clips, directory / "latents", mesh, vae)
    encode_set(experiment, clips, directory / "embedded", mesh, vae, embed)
    return run


def first_texts(run: Path, name: str, embed: ImportedEncoder, steps: int = 3) -> list[Text]:
    """Captions of the first batches as the step reads them."""
    experiment: Experiment = load_experiment("demo", SETTINGS)
    made = dit_run(experiment, ClipSet(run.parent / name), run, embed)
    with jax.set_mesh(made.mesh):
        batches = [made.prepare(next(made.data)).batch for _ in range(steps)]
    made.data.close()
    assert made.meta["text_id"] == embed.id
    return [jax.device_get(batch.text) for batch in batches]


def test_embeddings_of_the_step_are_those_made_beforehand(
    run: Path, embed: ImportedEncoder
) -> None:
    in_step, of_latents, before = (
        first_texts(run, name, embed) for name in ("set", "latents", "embedded")
    )
    for texts in zip(in_step, of_latents, before, strict=True):
        for text in texts:
            assert text.embeddings.shape == (4, 2 * LENGTH, WIDTH)
            assert text.embeddings.dtype == jax.numpy.bfloat16
            np.testing.assert_array_equal(text.segments, texts[0].segments)
            np.testing.assert_array_equal(np.unique(text.segments), [0, 1, 2])
            found, expected = (np.float32(each.embeddings) for each in (text, texts[0]))
            np.testing.assert_allclose(found, expected, rtol=2**-7, atol=1e-5)


@pytest.mark.slow
def test_the_run_samples_by_the_same_encoder_and_no_other(
    run: Path, embed: ImportedEncoder
) -> None:
    experiment: Experiment = load_experiment("demo", SETTINGS)
    train_stage(experiment, ClipSet(run.parent / "set"), run, "dit", embed=embed)  # and a preview
    loaded = load_run(run, embed=embed)
    assert isinstance(loaded.captions, EncodedCaptions)
    requests = [Request(prompt, 5, 32, 32, 8.0, 0) for prompt in ("a red circle", "a blue square")]
    red, blue = make_sampler(loaded).generate(requests)
    assert not np.array_equal(red.video, blue.video)
    assert not red.prompt_is_cut
    with pytest.raises(ConfigError, match=f"as embeddings by {embed.id}, and none is given"):
        load_run(run)


def test_what_does_not_fit_is_told(run: Path, embed: ImportedEncoder, tmp_path: Path) -> None:
    experiment: Experiment = load_experiment("demo", SETTINGS)
    clips, mesh = ClipSet(run.parent / "set"), make_mesh(experiment.mesh)
    with pytest.raises(ConfigError, match="makes embeddings 24 wide, and text.width is 32"):
        captions_read(clips, override(experiment, "text.width=32"), embed, mesh)
    with pytest.raises(DataError, match="no embeddings of captions: make it .* in the step with"):
        dit_run(experiment, clips, run)
    source = write_folder(tmp_path / "source", "umt5")
    import_encoder("umt5", source, tmp_path / "out", "float32", source)
    other = ImportedEncoder(tmp_path / "out")
    with pytest.raises(ConfigError, match=f"by {embed.id}, and --embed gives {other.id}: give the"):
        captions_read(ClipSet(run.parent / "embedded"), experiment, other, mesh)
    resumed = dit_run(experiment, clips, run, other)
    state = dit_run(experiment, clips, run, embed).data.state()
    with pytest.raises(DataError, match="the checkpoint's data position is of"):
        resumed.data.restore(state)
