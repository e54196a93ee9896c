"""Experiment -> training runs: the only factory that the loop's parts come from."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from jax.sharding import Mesh

from sora_jax import config as configs
from sora_jax.data.captions import TextEmbedder
from sora_jax.data.mixture import Clips
from sora_jax.data.pipeline import Batches, Steps
from sora_jax.encoded import captions_read, check_encoding, encoded_set
from sora_jax.eval.previews import Preview, reconstruction_preview, sample_preview
from sora_jax.experiment import Experiment
from sora_jax.models.latents import stored_tokens
from sora_jax.networks import load_vae, make_generator, make_judged_vae, sampler_of
from sora_jax.prepare import (
    Prepare,
    abstract_clips,
    prepare_clips,
    prepare_embedded,
    prepare_encoded,
    prepare_latents,
)
from sora_jax.programs import abstract_batch, step_of, vae_step
from sora_jax.sharding.mesh import make_mesh, mesh_for_rows
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.shown import first_shown, shown_requests
from sora_jax.train.clock import Work
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.run import Evaluator, Run, TrainConfig
from sora_jax.train.state import abstract_state, init_state
from sora_jax.train.step import TrainStep
from sora_jax.work import dit_work, peak_flops, vae_work


def vae_run(experiment: Experiment, clips: Clips, directory: Path) -> Run:
    """The autoencoder's training run."""
    mesh = make_mesh(experiment.mesh)
    stage, buckets = experiment.vae_stage, experiment.data.buckets
    filled = [i for i in clips.filled_buckets(experiment.data) if not buckets[i].appended]
    chosen = [i for i in filled if not stage.buckets or buckets[i].name in stage.buckets]
    rows = experiment.vae_rows()
    make_steps = functools.partial(
        Steps, clips, experiment.data, rows, experiment.seed, buckets=chosen or filled
    )
    steps = make_steps(shardings=[rows_sharding(mesh)] * len(buckets))
    _, shown = first_shown(make_steps(), experiment)
    return _run(
        "vae",
        experiment,
        directory,
        mesh=mesh,
        steps=steps,
        training=stage.training,
        make_model=functools.partial(make_judged_vae, experiment),
        step=vae_step(stage),
        batches=[abstract_clips(experiment, i, rows[i], mesh) for i in chosen or filled],
        prepare=prepare_clips(experiment, mesh),
        preview=reconstruction_preview(list(np.asarray(shown.video)), float(shown.fps[0])),
        work=vae_work(experiment),
    )


def dit_run(
    experiment: Experiment, clips: Clips, directory: Path, embed: TextEmbedder | None = None
) -> Run:
    """The transformer's training run, on posterior means by the run's trained autoencoder, of the
    clips of a set or those that a set holds. `embed`: as of `captions_read`; raises what that and
    `check_encoding` raise."""
    mesh = make_mesh(experiment.mesh)
    vae, statistics, _ = load_vae(experiment, directory, mesh)
    check_encoding(clips, vae, mesh)
    text = captions_read(clips, experiment, embed, mesh)
    stage, classes = experiment.dit_stage, experiment.classes()
    filled = clips.filled_buckets(experiment.data)
    to_tokens = functools.partial(stored_tokens, jax.device_get(statistics), experiment.dit.patch)
    make_steps = functools.partial(
        Steps,
        clips,
        experiment.data,
        experiment.batch_clips(),
        experiment.seed,
        buckets=filled,
        tokens=to_tokens if clips.encoding else None,
        **text.loaded,
    )
    make_scheduled = functools.partial(
        make_steps,
        shardings=[rows_sharding(mesh_for_rows(mesh, each.context)) for each in classes],
        curriculum=stage.periods(),
    )
    if clips.encoding:
        steps, prepare = make_scheduled(), prepare_latents(experiment, mesh)
    elif stage.encode_once:
        make_scheduled()  # refuses what cannot be scheduled before all is encoded
        latents = encoded_set(experiment, clips, directory, mesh, vae, statistics)
        steps, prepare = make_scheduled(latents=latents), prepare_latents(experiment, mesh)
    else:
        steps = make_scheduled()
        prepare = prepare_encoded(experiment, filled, mesh, vae, statistics)
    used = dict.fromkeys(classes[i] for i in filled)
    # Of all buckets, also where the curriculum starts with images.
    requests, captions = shown_requests(make_steps(), experiment, text.shown_by)
    rest: Any = {"vae": vae, "statistics": statistics, "captions": captions, "mesh": mesh}
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
        prepare=prepare_embedded(prepare, text.encoder, experiment, used, mesh),
        preview=sample_preview(functools.partial(sampler_of, experiment, **rest), requests),
        work=dit_work(experiment, encodes=not (clips.encoding or stage.encode_once)),
        more_meta=text.meta,
    )


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
    work: Mapping[str, Work],
    more_meta: Mapping[str, Any] | None = None,
) -> Run:
    """What both stages share: optimizer, state, keys and what is saved with a checkpoint."""

    def keys() -> Any:
        return jax.random.split(jax.random.key(experiment.seed))

    init_key = keys()[0]
    # Made where it is used: a key cannot be sent to the devices of other processes.
    key = jax.jit(lambda: keys()[1], out_shardings=replicated(mesh))()
    meta = {
        "stage": name,
        "fingerprint": configs.fingerprint(experiment.trained()),
        "experiment": configs.to_dict(experiment),
        "mesh": dict(mesh.shape),
        "versions": {"jax": jax.__version__, "flax": flax.__version__},
        **(more_meta or {}),
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
        work=work,
        peak_flops=peak_flops(mesh.devices.flat[0].device_kind),
        evaluators=(Evaluator(training.evaluate_every, preview),),
    )
