"""Experiment -> training runs: the only factory that the loop's parts come from."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from jax.sharding import Mesh

from sora_jax import config as configs
from sora_jax.data.pipeline import Batches, Steps
from sora_jax.data.sources import ClipSet
from sora_jax.encoded import encoded_set
from sora_jax.eval.previews import Preview, reconstruction_preview, sample_preview
from sora_jax.experiment import Experiment
from sora_jax.models.generator import Generator
from sora_jax.networks import load_vae, make_generator, make_vae, sampler_of
from sora_jax.prepare import (
    Prepare,
    abstract_clips,
    prepare_clips,
    prepare_encoded,
    prepare_latents,
)
from sora_jax.programs import abstract_batch, step_of
from sora_jax.sample.generate import Request, Sampler
from sora_jax.sharding.mesh import make_mesh, mesh_for_rows
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.loop import Run, TrainConfig
from sora_jax.train.state import abstract_state, init_state
from sora_jax.train.step import TrainStep
from sora_jax.train.vae_losses import vae_loss
from sora_jax.types import VideoBatch

SHOWN_ROWS = 4  # of the previews
SEARCHED_STEPS = 100  # of the schedule, which gives every bucket its share in so many


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
        [rows_sharding(mesh)] * len(names),
        chosen or filled,
    )

    shown = _shown(steps)

    rows = experiment.vae_rows()
    return _run(
        "vae",
        experiment,
        directory,
        mesh=mesh,
        steps=steps,
        training=stage.training,
        make_model=functools.partial(make_vae, experiment),
        step=step_of(stage.training, vae_loss(stage.loss)),
        batches=[abstract_clips(experiment, i, rows[i], mesh) for i in chosen or filled],
        prepare=prepare_clips(experiment, mesh),
        preview=reconstruction_preview(list(np.asarray(shown.video)), float(shown.fps[0])),
    )


def dit_run(experiment: Experiment, clips: ClipSet, directory: Path) -> Run:
    """The transformer's training run, on the latents of the run's trained autoencoder.

    Raises:
        ConfigError: captions come as embeddings, which sets do not have.
    """
    if experiment.text.source == "given":
        raise configs.ConfigError(
            "text.source=given: a set holds captions and no embeddings of them; train with "
            "text.source=encoder"
        )
    mesh = make_mesh(experiment.mesh)
    vae, statistics, _ = load_vae(experiment, directory, mesh)
    stage, classes = experiment.dit_stage, experiment.classes()
    filled = clips.filled_buckets(experiment.data)
    make_steps = functools.partial(
        Steps,
        clips,
        experiment.data,
        [shape_class.rows for shape_class in classes],
        experiment.seed,
        [rows_sharding(mesh_for_rows(mesh, shape_class.context)) for shape_class in classes],
        filled,
    )
    make_scheduled = functools.partial(make_steps, curriculum=stage.periods())
    steps = make_scheduled()
    if stage.encode_once:
        latents = encoded_set(experiment, clips, directory, mesh, vae, statistics)
        steps = make_scheduled(latents=latents)
        prepare = prepare_latents(experiment, mesh)
    else:
        prepare = prepare_encoded(experiment, filled, mesh, vae, statistics)

    used = dict.fromkeys(classes[i] for i in filled)
    # Of all buckets, also where the curriculum starts with images.
    shown = _shown(make_steps())
    frames, height, width = shown.video.shape[1:4]
    requests = [
        Request(clips.tokenizer.decode(ids), frames, height, width, float(fps), seed)
        for seed, (ids, fps) in enumerate(zip(shown.text.tolist(), shown.fps, strict=True))
    ]

    def preview_sampler(generator: Generator) -> Sampler:
        return sampler_of(experiment, generator, vae, statistics, clips.tokenizer, mesh)

    return _run(
        "dit",
        experiment,
        directory,
        mesh=mesh,
        steps=steps,
        training=stage.training,
        make_model=functools.partial(make_generator, experiment),
        step=step_of(stage.training, diffusion_loss(stage.diffusion), list(used)),
        batches=[abstract_batch(experiment, each, mesh) for each in used],
        prepare=prepare,
        preview=sample_preview(preview_sampler, requests),
    )


def _shown(steps: Steps) -> VideoBatch:
    """The first rows of the run's first batch of videos, or of images if it has no videos."""
    batches = (steps[k][1] for k in range(SEARCHED_STEPS))
    batch = next((batch for batch in batches if batch.video.shape[1] > 1), steps[0][1])
    return jax.tree.map(lambda array: array[:SHOWN_ROWS], batch)


def _run(
    name: str,
    experiment: Experiment,
    directory: Path,
    *,
    mesh: Mesh,
    steps: Steps,
    training: TrainConfig,
    make_model: Any,
    step: TrainStep,
    batches: Sequence[Any],
    prepare: Prepare,
    preview: Preview,
) -> Run:
    """What both stages share: optimizer, state, keys and what is saved with a checkpoint."""
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
        step=step,
        batches=batches,
        key=key,
        data=Batches(steps),
        prepare=prepare,
        init=lambda: init_state(make_model, step.optimizer, init_key, mesh),
        abstract=lambda: abstract_state(make_model, step.optimizer, mesh),
        meta=meta,
        evaluators=(preview,),
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
