"""AdamW or Muon with warm-up, cosine decay and clipping (optax)."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from sora_jax.config import LATER, ConfigError
from sora_jax.nn.width_scaling import update_scale

MUON_MOMENTUM = 0.95
BFLOAT16_STEP = 2**-8  # between neighbours, as a share
MUON_UPDATE_RMS = 0.2  # what AdamW's updates come to (arXiv:2502.16982, 2.2)
NORM_DECAY = 0.99  # of the running norm that `adaptive_clip` goes by
UPDATES_BEFORE_CLIPPING = 100  # until that norm says anything


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (arXiv:1711.05101), or Muon (arXiv:2502.16982), which takes orthogonalised steps in the
    matrices between hidden layers, convolutions among them, and leaves the rest to Nesterov's Adam.
    Muon's steps are scaled to the size of AdamW's; their extra cost does not grow with the batch.

    The rate warms up linearly, then falls along a cosine to `final_rate` x peak at the run's last
    step: from the warm-up on, or where `decay_share` is below 1, over that share of the steps, the
    last ones, and is constant until then. `moments` is the type they are kept in between updates:
    bfloat16 takes half the memory and needs moments that forget faster than it rounds.

    Gradients are clipped to a global norm of `clip_norm`, and where `adaptive_clip` is given, also
    to so many times the running mean of their norms (see `clip_by_running_norm`).
    """

    method: Literal["adamw", "muon"] = "adamw"
    peak_rate: float = 1e-4
    warmup_steps: int = 1_000
    final_rate: float = 0.1
    decay_share: float = dataclasses.field(default=1.0, metadata=LATER)
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    clip_norm: float = 1.0
    adaptive_clip: float | None = None
    moments: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.peak_rate <= 0 or self.clip_norm <= 0 or self.warmup_steps < 0:
            raise ConfigError(
                f"optimizer: peak_rate={self.peak_rate} and clip_norm={self.clip_norm} must be "
                f"positive, warmup_steps={self.warmup_steps} not negative"
            )
        if not 0 < self.decay_share <= 1:
            raise ConfigError(
                f"optimizer.decay_share={self.decay_share} must be above 0 and at most 1; with "
                "final_rate=1 the rate stays constant"
            )
        if self.adaptive_clip is not None and self.adaptive_clip <= 1:
            raise ConfigError(
                f"optimizer.adaptive_clip={self.adaptive_clip} must be above 1, the running norm"
            )
        if self.moments == "bfloat16" and 1 - self.beta2 < BFLOAT16_STEP:
            raise ConfigError(
                f"optimizer.beta2={self.beta2} forgets 1 - beta2 of a moment in a step, less than "
                f"bfloat16 can tell apart: at most {1 - BFLOAT16_STEP} with moments=bfloat16"
            )


def rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate as a function of the update's number, over a run of `steps`."""
    warm, steps = config.warmup_steps, max(steps, config.warmup_steps + 1)
    if config.decay_share < 1:
        start = max(warm, math.floor((1 - config.decay_share) * steps))
        warmup = optax.linear_schedule(0.0, config.peak_rate, warm)
        stable = optax.constant_schedule(config.peak_rate)
        decay = optax.cosine_decay_schedule(config.peak_rate, steps - start, config.final_rate)
        return optax.join_schedules([warmup, stable, decay], [warm, start])
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.peak_rate,
        warmup_steps=warm,
        decay_steps=steps,
        end_value=config.final_rate * config.peak_rate,
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW or Muon; only matrices decay, not biases and norm scales."""
    rate = rate_schedule(config, steps)
    if config.method == "muon":
        update = optax.contrib.muon(
            rate,
            beta=MUON_MOMENTUM,
            consistent_rms=MUON_UPDATE_RMS,
            weight_decay=config.weight_decay,
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            adam_weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=hidden_matrices,
        )
        update = decaying_matrices(update)
    else:
        update = optax.adamw(
            rate,
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decaying,
        )
    update = scaled_over_width(update, orthogonalises=config.method == "muon")
    if config.moments == "bfloat16":
        update = kept_in_bfloat16(update)
    clips = [optax.clip_by_global_norm(config.clip_norm)]
    if config.adaptive_clip is not None:
        clips.append(clip_by_running_norm(config.adaptive_clip))
    return optax.chain(*clips, update)


def by_part(
    optimizers: Mapping[str, optax.GradientTransformation], parts_of: Callable[[Any], Any]
) -> optax.GradientTransformation:
    """Each part of a model by an optimizer of its own, its norms included; what has none stays.
    `parts_of`: a tree like the model with the name of the part at every leaf."""
    names: Any = lambda model: jax.tree.map(  # noqa: E731
        lambda name: name if name in optimizers else "fixed", parts_of(model)
    )
    return optax.partition({**optimizers, "fixed": optax.set_to_zero()}, names)


class RunningNorm(NamedTuple):
    """What gradients have come to: a mean of the norms after clipping, that forgets."""

    mean: Float[Array, ""]  # of `updates` norms, from 0 on: not yet corrected for its start
    updates: Int[Array, ""]


def clip_by_running_norm(
    factor: float, decay: float = NORM_DECAY, warmup: int = UPDATES_BEFORE_CLIPPING
) -> optax.GradientTransformation:
    """Scales gradients down to `factor` times the running mean of their global norm, so that a
    batch out of line moves the weights no further than its neighbours do (AdaGC, arXiv:2502.11034,
    with one norm for all tensors). The mean takes the norm as clipped: an outlier does not lift it.

    It clips nothing in the first `warmup` updates.
    """

    def init(parameters: Any) -> RunningNorm:
        del parameters
        return RunningNorm(jnp.zeros(()), jnp.zeros((), jnp.int32))

    def update(
        gradients: Any, state: RunningNorm, parameters: Any = None
    ) -> tuple[Any, RunningNorm]:
        del parameters
        norm = optax.tree.norm(gradients)
        so_far = state.mean / jnp.maximum(1 - decay**state.updates, 1 - decay)
        limit = jnp.where(state.updates < warmup, norm, factor * so_far)
        scale = jnp.minimum(1.0, limit / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny))
        mean = decay * state.mean + (1 - decay) * norm * scale
        gradients = jax.tree.map(lambda leaf: leaf * scale, gradients)
        return gradients, RunningNorm(mean, state.updates + 1)

    return optax.GradientTransformation(init, update)


def scaled_over_width(
    inner: optax.GradientTransformation, *, orthogonalises: bool
) -> optax.GradientTransformation:
    """`inner` with updates as far as the width asks for (nn/width_scaling.py).

    Weights decay by rate x `weight_decay` at any width, as arXiv:2405.13698 and arXiv:2505.01618
    find: `inner`, which looks at them for that alone, sees them larger by what its update is then
    made smaller.
    """

    def update(gradients: Any, state: Any, model: Any) -> tuple[Any, Any]:
        def scale(name: str, variable: nnx.Variable) -> float:
            by_muon = orthogonalises and _matrix_axes(name, variable) is not None
            return update_scale(variable, orthogonalised=by_muon)

        scales = _of_parameters(model, scale)
        seen = jax.tree.map(lambda x, scale: x if scale == 1 else x / scale, model, scales)
        updates, state = inner.update(gradients, state, seen)
        return jax.tree.map(lambda x, scale: x if scale == 1 else x * scale, updates, scales), state

    return optax.GradientTransformation(inner.init, update)


def decaying_matrices(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, which looks at weights for their decay alone and takes no mask of those that do, as
    the Adam within optax's Muon: it sees zeros at biases and norm scales."""

    def update(gradients: Any, state: Any, model: Any) -> tuple[Any, Any]:
        seen = jax.tree.map(
            lambda x, decays: x if decays else jnp.zeros_like(x), model, decaying(model)
        )
        return inner.update(gradients, state, seen)

    return optax.GradientTransformation(inner.init, update)


def kept_in_bfloat16(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with the float32 arrays of its state rounded to bfloat16 between updates."""

    def cast(state: Any, before: Any, after: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(after) if x.dtype == before else x, state)

    def init(parameters: Any) -> Any:
        return cast(inner.init(parameters), jnp.float32, jnp.bfloat16)

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        state = cast(state, jnp.bfloat16, jnp.float32)
        updates, state = inner.update(gradients, state, parameters)
        return updates, cast(state, jnp.float32, jnp.bfloat16)

    return optax.GradientTransformation(init, update)


def decaying(model: Any) -> Any:
    """A tree like `model`, true at matrices."""
    return _of_parameters(model, _is_matrix)


def hidden_matrices(model: Any) -> Any:
    """A tree like `model`, with the input and output axes of every matrix, and None at vectors and
    at what meets `features` of tokens or the `vocabulary`. A convolution is the matrix from all
    cells under its kernel."""

    return _of_parameters(model, _matrix_axes)


def _matrix_axes(name: str, variable: nnx.Variable) -> optax.contrib.MuonDimensionNumbers | None:
    names = variable.get_metadata()["axes"]
    outside = {"features", "vocabulary"} & set(names)
    if outside or not _is_matrix(name, variable):
        return None
    rank = variable.get_value().ndim
    inputs = tuple(range(rank - len(names), rank - 1))  # what stands before is a stack's
    return optax.contrib.MuonDimensionNumbers(inputs, rank - 1)


def _is_matrix(name: str, variable: nnx.Variable) -> bool:
    """The names of a parameter's axes tell a matrix, not its rank: in a stack every bias has one
    axis more."""
    return len(variable.get_metadata()["axes"]) > 1 and not name.endswith("bias")


def _of_parameters(model: Any, function: Callable[[str, nnx.Variable], Any]) -> Any:
    """A tree like `model` with a function of each parameter's last name and itself."""

    def of(path: tuple[Any, ...], variable: nnx.Variable) -> Any:
        if not jax.tree.leaves(variable):  # optax leaves out the parameters of other parts
            return variable
        value = function(str(getattr(path[-1], "name", "")), variable)
        return jax.tree.map(lambda _: value, variable)

    return jax.tree_util.tree_map_with_path(
        of, model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
    )
