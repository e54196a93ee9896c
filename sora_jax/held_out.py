"""Scores of clips that are not trained on, as a run's evaluators log them while it trains.

They are those of `sora evaluate` on the same set: `vae/...` of the averaged autoencoder,
`held_out/loss...` of the averaged transformer, and the same under `raw/` of the parameters as they
are trained. One of them may decide which checkpoint stays (`retention.best=held_out/loss`).
"""

import dataclasses
from collections.abc import Callable, Sequence

from sora_jax.data.captions import TextEmbedder
from sora_jax.eval import suites
from sora_jax.eval.examples import Example
from sora_jax.eval.suite import Memory, Suite, collect, metrics_of, score
from sora_jax.experiment import Experiment
from sora_jax.models.judged_vae import autoencoder_of
from sora_jax.networks import captions_of, load_vae, sampler_of
from sora_jax.train.metrics import MetricWriter
from sora_jax.train.run import Evaluator, Run
from sora_jax.train.state import TrainState

Call = Callable[[TrainState, int, MetricWriter], None]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Clips to score, every so many steps (None: as often as the run shows previews). `embed`: as
    of `load_run`."""

    examples: Sequence[Example]
    every: int | None = None
    embed: TextEmbedder | None = None


def scored(run: Run, experiment: Experiment, held_out: HeldOut) -> Run:
    """A run of either stage that logs scores of held-out clips as well."""
    every = held_out.every or run.config.evaluate_every
    call = (_vae_scores if run.name == "vae" else _dit_losses)(run, experiment, held_out)
    return dataclasses.replace(run, evaluators=(*run.evaluators, Evaluator(every, call)))


def _vae_scores(run: Run, experiment: Experiment, held_out: HeldOut) -> Call:
    def write(state: TrainState, step: int, writer: MetricWriter) -> None:
        suite = suites.reconstruction(autoencoder_of(state.ema), held_out.examples)
        writer.scalars(step, _metrics(suite, experiment))

    return write


def _dit_losses(run: Run, experiment: Experiment, held_out: HeldOut) -> Call:
    directory = run.directory.parent
    vae, statistics, _ = load_vae(experiment, directory, run.mesh)
    captions = captions_of(experiment, directory, run.meta.get("text_id"), held_out.embed)

    def write(state: TrainState, step: int, writer: MetricWriter) -> None:
        metrics: dict[str, float] = {}
        for prefix, generator in (("", state.ema), ("raw/", state.model)):
            sampler = sampler_of(experiment, generator, vae, statistics, captions, run.mesh)
            found = _metrics(suites.loss(sampler, held_out.examples), experiment)
            metrics |= {f"{prefix}{name}": value for name, value in found.items()}
        writer.scalars(step, metrics)

    return write


def _metrics(suite: Suite, experiment: Experiment) -> dict[str, float]:
    rows, store = experiment.sampling.rows, Memory()
    score(suite, rows, store, shown=0)
    return metrics_of(suite, collect(suite, rows, store))
