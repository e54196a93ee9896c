"""Experiment -> live objects: the only factory. A run directory holds

config.json       the resolved experiment        tokenizer.model   of the set trained on
vae/ dit/         checkpoints, metrics.jsonl, tensorboard of each stage
vae/latents.json  mean and deviation of the latent channels
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sora_jax import config as configs
from sora_jax.checkpoints import CheckpointError, Checkpoints
from sora_jax.data.pipeline import Batches, Steps, rows_from_sharding
from sora_jax.data.sources import ClipSet
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.experiment import Experiment
from sora_jax.models.generator import Generator
from sora_jax.models.latents import LatentStatistics, encode_batch
from sora_jax.models.vae import VAE, to_unit
from sora_jax.sample.generate import Sampler
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import parameter_shardings, replicated, rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.loop import Prepared, Run, TrainConfig
from sora_jax.train.optimizer import make_optimizer
from sora_jax.train.state import abstract_state, init_state
from sora_jax.train.step import LossFunction, train_step
from sora_jax.train.vae_losses import vae_loss
from sora_jax.types import LatentBatch, VideoBatch

STATISTICS_BATCHES = 16


def make_vae(experiment: Experiment, rngs: nnx.Rngs) -> VAE:
    return VAE(experiment.vae, rngs=rngs)


def make_generator(experiment: Experiment, rngs: nnx.Rngs) -> Generator:
    return Generator(
        experiment.dit,
        experiment.text,
        channels=experiment.vae.channels,
        vocabulary=experiment.data.vocabulary_size,
        rngs=rngs,
    )


def vae_run(experiment: Experiment, clips: ClipSet, directory: Path) -> Run:
    """The autoencoder's training run."""
    mesh = make_mesh(experiment.mesh)
    stage, names = experiment.vae_stage, [b.name for b in experiment.data.buckets]
    filled = clips.filled_buckets(experiment.data)
    chosen = [i for i in filled if not stage.buckets or names[i] in stage.buckets]
    steps = Steps(
        clips,
        experiment.data,
        experiment.vae_rows(),
        experiment.seed,
        rows_from_sharding(rows_sharding(mesh)),
        chosen or filled,
    )

    def prepare(item: tuple[int, VideoBatch]) -> Prepared:
        batch = to_devices(item[1], mesh)
        return Prepared(batch, batch.video.shape[0] * experiment.tokens(_bucket(experiment, item)))

    return _run(
        "vae",
        experiment,
        directory,
        mesh=mesh,
        steps=steps,
        training=stage.training,
        make_model=functools.partial(make_vae, experiment),
        loss=vae_loss(stage.loss),
        prepare=prepare,
    )


def dit_run(experiment: Experiment, clips: ClipSet, directory: Path) -> Run:
    """The transformer's training run, on the latents of the run's trained autoencoder."""
    mesh = make_mesh(experiment.mesh)
    vae, statistics, _ = load_vae(experiment, directory, mesh)
    classes = experiment.classes()
    steps = Steps(
        clips,
        experiment.data,
        [shape_class.rows for shape_class in classes],
        experiment.seed,
        rows_from_sharding(rows_sharding(mesh)),
        clips.filled_buckets(experiment.data),
    )
    encode = jax.jit(
        functools.partial(encode_batch, patch=experiment.dit.patch), static_argnames="tokens"
    )

    def prepare(item: tuple[int, VideoBatch]) -> Prepared:
        batch: LatentBatch = encode(
            vae, statistics, to_devices(item[1], mesh), tokens=classes[item[0]].tokens
        )
        rows = batch.latents.shape[0]
        return Prepared(batch, rows * experiment.tokens(_bucket(experiment, item)))

    stage = experiment.dit_stage
    return _run(
        "dit",
        experiment,
        directory,
        mesh=mesh,
        steps=steps,
        training=stage.training,
        make_model=functools.partial(make_generator, experiment),
        loss=diffusion_loss(stage.diffusion),
        prepare=prepare,
    )


def _bucket(experiment: Experiment, item: tuple[int, VideoBatch]) -> Any:
    return experiment.data.buckets[item[0]]


def _run(
    name: str,
    experiment: Experiment,
    directory: Path,
    *,
    mesh: Mesh,
    steps: Steps,
    training: TrainConfig,
    make_model: Any,
    loss: LossFunction,
    prepare: Any,
) -> Run:
    """What both stages share: optimizer, state, keys and what is saved with a checkpoint."""
    optimizer = make_optimizer(training.optimizer, training.steps)
    init_key, step_key = jax.random.split(jax.random.key(experiment.seed))
    key = jax.device_put(step_key, replicated(mesh))
    meta = {
        "stage": name,
        "fingerprint": configs.fingerprint(experiment.trained()),
        "experiment": configs.to_dict(experiment),
        "mesh": dict(mesh.shape),
        "versions": {"jax": jax.__version__, "flax": flax.__version__},
    }
    return Run(
        name=name,
        directory=directory / name,
        config=training,
        mesh=mesh,
        step=functools.partial(
            train_step, loss_function=loss, optimizer=optimizer, ema_decay=training.ema_decay
        ),
        key=key,
        data=Batches(steps),
        prepare=prepare,
        init=lambda: init_state(make_model, optimizer, init_key, mesh),
        abstract=lambda: abstract_state(make_model, optimizer, mesh),
        meta=meta,
    )


def to_devices(batch: VideoBatch, mesh: Mesh) -> VideoBatch:
    """This process's rows of a batch as global arrays, rows split over the mesh."""
    sharding = rows_sharding(mesh)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array), batch
    )


def open_directory(experiment: Experiment, clips: ClipSet, directory: Path) -> None:
    """Makes the run directory, or checks that it is of this experiment; keeps the tokenizer."""
    path = directory / "config.json"
    if path.exists():
        saved = configs.load(Experiment, path)
        if saved.trained() != experiment.trained():
            raise configs.ConfigError(
                f"{directory} holds a run of config {configs.fingerprint(saved.trained())}, this "
                f"one is {configs.fingerprint(experiment.trained())}: choose another --workdir, or "
                "the same settings"
            )
        if (directory / "tokenizer.model").read_bytes() != clips.tokenizer.model:
            raise configs.ConfigError(
                f"{directory} holds a run on another set, whose captions are cut into other "
                f"tokens than those of {clips.directory}: choose another --workdir, or that set"
            )
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tokenizer.model").write_bytes(clips.tokenizer.model)
        configs.save(experiment, path)
    except OSError as error:
        raise configs.ConfigError(f"cannot make a run in {directory}: {error.strerror}") from error


def measure_latents(experiment: Experiment, clips: ClipSet, directory: Path) -> None:
    """Writes vae/latents.json: statistics of the averaged autoencoder's latents over the set."""
    mesh = make_mesh(experiment.mesh)
    checkpoints = Checkpoints(directory / "vae" / "checkpoints")
    vae = _restore_ema(checkpoints, experiment, make_vae, mesh)
    rows = [shape_class.rows for shape_class in experiment.classes()]
    filled = clips.filled_buckets(experiment.data)
    steps = Steps(clips, experiment.data, rows, experiment.seed, buckets=filled)
    encode = jax.jit(lambda vae, video: vae.encode(to_unit(video))[0])
    seen = [
        np.asarray(encode(vae, steps[k][1].video)).reshape(-1, experiment.vae.channels)
        for k in range(STATISTICS_BATCHES)
    ]
    values = np.concatenate(seen).astype(np.float64)
    content = {
        "step": checkpoints.latest(),
        "mean": values.mean(0).tolist(),
        "deviation": values.std(0).tolist(),
    }
    checkpoints.close()
    partial = directory / "vae" / "latents.json.partial"
    partial.write_text(json.dumps(content))
    partial.replace(directory / "vae" / "latents.json")


def _restore_ema(
    checkpoints: Checkpoints, experiment: Experiment, make_model: Any, mesh: Mesh
) -> Any:
    """The averaged model of the newest checkpoint, which must be of this experiment."""
    saved = checkpoints.meta()["fingerprint"]
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
    return checkpoints.restore_ema(abstract)


def load_vae(
    experiment: Experiment, directory: Path, mesh: Mesh
) -> tuple[VAE, LatentStatistics, int]:
    """The averaged autoencoder, its latent statistics, and the step they are of."""
    path = directory / "vae" / "latents.json"
    if not path.exists():
        raise CheckpointError(f"{path} is missing: train the autoencoder first (--stage vae)")
    content = json.loads(path.read_text())
    checkpoints = Checkpoints(directory / "vae" / "checkpoints")
    if checkpoints.latest() != content["step"]:
        raise CheckpointError(
            f"{path} is of step {content['step']}, the newest checkpoint of "
            f"{checkpoints.latest()}: run --stage vae to its end"
        )
    vae = _restore_ema(checkpoints, experiment, make_vae, mesh)
    checkpoints.close()
    statistics = LatentStatistics(
        jnp.asarray(content["mean"], jnp.float32), jnp.asarray(content["deviation"], jnp.float32)
    )
    return vae, jax.device_put(statistics, replicated(mesh)), content["step"]


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A trained run, ready to sample from: averaged models only."""

    experiment: Experiment
    directory: Path
    mesh: Mesh
    generator: Generator
    vae: VAE
    statistics: LatentStatistics
    tokenizer: Tokenizer
    fingerprints: dict[str, str]


def load_run(directory: Path, mesh_config: MeshConfig | None = None) -> LoadedRun:
    """Restores the averaged models of a run, over all devices here or over `mesh_config`.s,
    which need not be like the one trained on."""
    path = directory / "config.json"
    if not path.exists():
        raise CheckpointError(f"{directory} is no run: it has no config.json")
    experiment = configs.load(Experiment, path)
    mesh = make_mesh(mesh_config or MeshConfig())
    vae, statistics, vae_step = load_vae(experiment, directory, mesh)
    checkpoints = Checkpoints(directory / "dit" / "checkpoints")
    generator = _restore_ema(checkpoints, experiment, make_generator, mesh)
    dit_step = checkpoints.latest()
    checkpoints.close()
    fingerprint = configs.fingerprint(experiment.trained())
    return LoadedRun(
        experiment=experiment,
        directory=directory,
        mesh=mesh,
        generator=generator,
        vae=vae,
        statistics=statistics,
        tokenizer=Tokenizer.load(directory / "tokenizer.model"),
        fingerprints={
            "experiment": fingerprint,
            "vae": f"{fingerprint}@{vae_step}",
            "dit": f"{fingerprint}@{dit_step}",
        },
    )


def make_sampler(run: LoadedRun, **changes: Any) -> Sampler:
    """A sampler of a loaded run, with `changes` to the experiment's sampling config."""
    experiment = run.experiment
    return Sampler(
        generator=run.generator,
        vae=run.vae,
        statistics=run.statistics,
        tokenizer=run.tokenizer,
        text_length=experiment.data.text_length,
        times=experiment.dit_stage.diffusion.times,
        config=dataclasses.replace(experiment.sampling, **changes),
        mesh=run.mesh,
    )
