"""An experiment's networks: made fresh, or restored from a run directory to sample from.

A run directory holds

    config.json       the resolved experiment        tokenizer.model   of the set trained on
    vae/ dit/         checkpoints, metrics.jsonl, tensorboard of each stage
    vae/latents.json  mean and deviation of the latent channels
    dit/latents       the latents of the whole set, if they are made once (encoded.py)
"""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sora_jax import config as configs
from sora_jax.checkpoints import CheckpointError, Checkpoints
from sora_jax.data.captions import EmbeddedCaptions, TextEmbedder
from sora_jax.data.mixture import Clips
from sora_jax.data.pipeline import Steps
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.errors import ConfigError
from sora_jax.experiment import Experiment
from sora_jax.models.autoencoders import make_autoencoder
from sora_jax.models.discriminator import Discriminator
from sora_jax.models.generator import Generator
from sora_jax.models.judged_vae import JudgedVAE
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.vae import VAE, to_unit
from sora_jax.processes import is_first, to_host, wait_for_all
from sora_jax.sample.generate import Captions, Sampler
from sora_jax.saved_arrays import bytes_read
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import parameter_shardings, replicated, rows_sharding
from sora_jax.weights.lpips import load_lpips
from sora_jax.weights.text_encoders import EncodedCaptions, ImportedEncoder

STATISTICS_CLIPS = 1_024  # at least, for what latents are normalised by
Parameters = Literal["ema", "raw"]  # averaged over the steps of training, or as these left them


def make_vae(experiment: Experiment, rngs: nnx.Rngs) -> VAE:
    return make_autoencoder(experiment.vae, rngs=rngs)


def make_judged_vae(experiment: Experiment, rngs: nnx.Rngs) -> VAE | JudgedVAE:
    """The autoencoder as it is trained: alone, or with what judges it.

    Raises:
        UserError: there are no weights of the perceptual distance.
    """
    loss, vae = experiment.vae_stage.loss, make_vae(experiment, rngs)
    if not loss.is_judged:
        return vae
    adversarial = loss.adversarial
    return JudgedVAE(
        vae,
        load_lpips(loss.perceptual_weights).model if loss.perceptual else None,
        Discriminator(adversarial.discriminator, rngs=rngs) if adversarial else None,
    )


def make_generator(experiment: Experiment, rngs: nnx.Rngs) -> Generator:
    return Generator(
        experiment.dit,
        experiment.text,
        channels=experiment.vae.channels,
        vocabulary=experiment.data.vocabulary_size,
        rngs=rngs,
    )


def measure_latents(experiment: Experiment, clips: Clips, directory: Path) -> None:
    """Writes vae/latents.json: statistics of the averaged autoencoder's latents over clips of the
    set, in the buckets' shares: in float64, and so many at once as a step of its training has."""
    mesh = make_mesh(experiment.mesh)
    vae, step = averaged_vae(experiment, directory, mesh)
    filled, sharding = clips.filled_buckets(experiment.data), rows_sharding(mesh)
    data, rows = experiment.data, experiment.vae_rows()
    steps = Steps(
        clips, data, rows, experiment.seed, buckets=filled, shardings=[sharding] * len(rows)
    )
    encode = jax.jit(lambda vae, video: vae.encode(to_unit(video))[0])
    count, sums, squares, seen = 0, 0.0, 0.0, 0
    for _, batch in map(steps.__getitem__, itertools.count()):
        video = jax.make_array_from_process_local_data(sharding, batch.video)
        latents = to_host(encode(vae, video)).reshape(-1, experiment.vae.channels)
        values = latents.astype(np.float64)
        count, sums = count + len(values), sums + values.sum(0)
        squares, seen = squares + np.square(values).sum(0), seen + len(video)
        if seen >= STATISTICS_CLIPS:
            break
    mean: Any = sums / count
    content = {
        "step": step,
        "clips": seen,
        "mean": mean.tolist(),
        "deviation": np.sqrt(squares / count - np.square(mean)).tolist(),
    }
    if is_first():
        partial = directory / "vae" / "latents.json.partial"
        partial.write_text(json.dumps(content))
        partial.replace(directory / "vae" / "latents.json")
    wait_for_all("latents measured")


def _restore(
    checkpoints: Checkpoints,
    experiment: Experiment,
    make_model: Any,
    mesh: Mesh,
    step: int | None = None,
    parameters: Parameters = "ema",
) -> Any:
    """A model of the checkpoint of a step (default: the newest), which must be of this
    experiment."""
    saved = checkpoints.meta(step)["fingerprint"]
    expected = configs.fingerprint(experiment.trained())
    if saved != expected:
        raise CheckpointError(
            f"{checkpoints.directory} is of config {saved}, config.json of {expected}: "
            "restore the config.json that the run was trained with"
        )
    shapes = jax.eval_shape(lambda: make_model(experiment, nnx.Rngs(0)))
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        parameter_shardings(shapes, mesh),
    )
    restore = checkpoints.restore_ema if parameters == "ema" else checkpoints.restore_model
    judged = make_model is make_vae and experiment.vae_stage.loss.is_judged
    return restore(abstract, step, "vae." if judged else "")


def averaged_vae(experiment: Experiment, directory: Path, mesh: Mesh) -> tuple[VAE, int]:
    """The averaged autoencoder of a run's newest checkpoint, and its step."""
    checkpoints = Checkpoints(directory / "vae" / "checkpoints")
    vae, step = _restore(checkpoints, experiment, make_vae, mesh), checkpoints.latest()
    checkpoints.close()
    return vae, step or 0


def load_vae(
    experiment: Experiment, directory: Path, mesh: Mesh
) -> tuple[VAE, LatentStatistics, int]:
    """The averaged autoencoder, its latent statistics, and the step they are of."""
    path = directory / "vae" / "latents.json"
    if not path.exists():
        raise CheckpointError(f"{path} is missing: train the autoencoder first (--stage vae)")
    content = json.loads(path.read_text())
    vae, step = averaged_vae(experiment, directory, mesh)
    if step != content["step"]:
        raise CheckpointError(
            f"{path} is of step {content['step']}, the newest checkpoint of {step}: run --stage "
            "vae to its end"
        )
    statistics = LatentStatistics(
        jnp.asarray(content["mean"], jnp.float32), jnp.asarray(content["deviation"], jnp.float32)
    )
    return vae, jax.device_put(statistics, replicated(mesh)), content["step"]


def experiment_of(directory: Path) -> Experiment:
    """What a run directory is a run of; raises CheckpointError if it is none."""
    path = directory / "config.json"
    if not path.exists():
        raise CheckpointError(f"{directory} is no run: it has no config.json")
    return configs.load(Experiment, path)


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A trained run, ready to sample from: the averaged autoencoder, and the averaged or raw
    transformer of a step. `bytes_read`: from its checkpoint, by this process."""

    experiment: Experiment
    directory: Path
    mesh: Mesh
    generator: Generator
    vae: VAE
    statistics: LatentStatistics
    captions: Captions
    fingerprints: dict[str, str]
    step: int
    parameters: Parameters
    bytes_read: int


def saved_steps(directory: Path) -> list[int]:
    """Of the complete checkpoints of a run's transformer, the newest last.

    Raises:
        CheckpointError: the directory is no run.
    """
    experiment_of(directory)
    checkpoints = Checkpoints(directory / "dit" / "checkpoints")
    steps = sorted(checkpoints.steps())
    checkpoints.close()
    return steps


def load_run(
    directory: Path,
    mesh_config: MeshConfig | None = None,
    like: Experiment | None = None,
    embed: TextEmbedder | None = None,
    step: int | None = None,
    parameters: Parameters = "ema",
) -> LoadedRun:
    """Restores the models of a run, over all devices here or over `mesh_config`'s, which need not
    be like the one trained on; no more is read than these.

    `like`: an experiment that trains the same, to sample as it does, over its mesh. `embed`: what
    makes embeddings of captions, for a run that was trained on these. `step`: of the transformer,
    by default its newest.

    Raises:
        CheckpointError: the directory is no run, `like` trains something else, or there is no
            checkpoint of the step.
        ConfigError: `embed` is not what the run's captions were embedded by.
    """
    experiment = experiment_of(directory)
    if like is not None:
        trained, other = (configs.fingerprint(each.trained()) for each in (experiment, like))
        if trained != other:
            raise CheckpointError(
                f"{directory} was trained with config {trained}, and {like.name} trains {other}: "
                "name an experiment that differs in mesh, attention and sampling alone"
            )
        experiment, mesh_config = like, mesh_config or like.mesh
    mesh = make_mesh(mesh_config or MeshConfig())
    vae, statistics, vae_step = load_vae(experiment, directory, mesh)
    checkpoints = Checkpoints(directory / "dit" / "checkpoints")
    step = _chosen(checkpoints, step)
    before = bytes_read()
    generator = _restore(checkpoints, experiment, make_generator, mesh, step, parameters)
    read, text_id = bytes_read() - before, checkpoints.meta(step).get("text_id")
    checkpoints.close()
    fingerprint = configs.fingerprint(experiment.trained())
    return LoadedRun(
        experiment=experiment,
        directory=directory,
        mesh=mesh,
        generator=generator,
        vae=vae,
        statistics=statistics,
        captions=captions_of(experiment, directory, text_id, embed),
        fingerprints={
            "experiment": fingerprint,
            "vae": f"{fingerprint}@{vae_step}",
            "dit": f"{fingerprint}@{step}",
        },
        step=step,
        parameters=parameters,
        bytes_read=read,
    )


def _chosen(checkpoints: Checkpoints, step: int | None) -> int:
    """The step, or the newest; raises CheckpointError if there is no checkpoint of it."""
    steps = sorted(checkpoints.steps())
    if step in steps:
        return step
    if step is None and steps:
        return steps[-1]
    there = f"there are steps {', '.join(map(str, steps))}" if steps else "train first"
    asked = "no complete checkpoint" if step is None else f"no checkpoint of step {step}"
    raise CheckpointError(f"{asked} in {checkpoints.directory}: {there}")


def captions_of(
    experiment: Experiment, directory: Path, text_id: str | None, embed: TextEmbedder | None
) -> Captions:
    """What makes of captions what the run's network reads."""
    if experiment.text.source == "encoder":
        return Tokenizer.load(directory / "tokenizer.model")
    if embed is None or embed.id != text_id:
        given = "none is" if embed is None else f"{embed.id} is"
        raise ConfigError(
            f"{directory} reads captions as embeddings by {text_id}, and {given} given: name what "
            "makes them with --embed, MODULE:FUNCTION or a folder that `sora import` made"
        )
    if isinstance(embed, ImportedEncoder):
        return EncodedCaptions(embed, embed.here())
    return EmbeddedCaptions(embed)


def make_sampler(run: LoadedRun, **changes: Any) -> Sampler:
    """A sampler of a loaded run, with `changes` to the experiment's sampling config."""
    sampling = dataclasses.replace(run.experiment.sampling, **changes)
    experiment = dataclasses.replace(run.experiment, sampling=sampling)
    models = (run.generator, run.vae, run.statistics)
    return sampler_of(experiment, *models, run.captions, run.mesh)


def sampler_of(
    experiment: Experiment,
    generator: Generator,
    vae: VAE,
    statistics: LatentStatistics,
    captions: Captions,
    mesh: Mesh,
) -> Sampler:
    return Sampler(
        generator=generator,
        vae=vae,
        statistics=statistics,
        captions=captions,
        text_length=experiment.data.text_length,
        times=experiment.dit_stage.diffusion.times,
        config=experiment.sampling,
        mesh=mesh,
    )
