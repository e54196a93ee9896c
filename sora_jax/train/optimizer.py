"""AdamW with warm-up, cosine decay and clipping (optax)."""

import dataclasses
from typing import Any

import jax
import optax
from flax import nnx

from sora_jax.config import ConfigError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (arXiv:1711.05101). The rate warms up linearly, then falls along a cosine to
    `final_rate` x peak at the run's last step."""

    peak_rate: float = 1e-4
    warmup_steps: int = 1_000
    final_rate: float = 0.1
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.peak_rate <= 0 or self.clip_norm <= 0 or self.warmup_steps < 0:
            raise ConfigError(
                f"optimizer: peak_rate={self.peak_rate} and clip_norm={self.clip_norm} must be "
                f"positive, warmup_steps={self.warmup_steps} not negative"
            )


def rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate as a function of the update's number, over a run of `steps`."""
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.peak_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(steps, config.warmup_steps + 1),
        end_value=config.final_rate * config.peak_rate,
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW; only matrices decay, not biases and norm scales."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            rate_schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decaying,
        ),
    )


def decaying(model: Any) -> Any:
    """A tree like `model`, true at matrices. The names of a parameter's axes tell a matrix, not its
    rank: in a stack every bias has one axis more."""

    def of(path: tuple[Any, ...], variable: nnx.Variable) -> Any:
        is_bias = str(getattr(path[-1], "name", "")).endswith("bias")
        decays = len(variable.get_metadata()["axes"]) > 1 and not is_bias
        return jax.tree.map(lambda _: decays, variable)

    return jax.tree_util.tree_map_with_path(
        of, model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
    )
