"""What a width has updates multiplied by: of the transformer's parameters, and by an optimizer."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sora_jax.checkpoints import named
from sora_jax.config import ConfigError
from sora_jax.models.generator import Generator
from sora_jax.nn.layers import Linear
from sora_jax.nn.width_scaling import tell_base_shapes, update_scale
from sora_jax.train.optimizer import OptimizerConfig, hidden_matrices, make_optimizer, rate_schedule
from tests.tiny import DIT, TEXT, VAE, VOCABULARY

OUTSIDE = ("embed", "place.linear", "caption", "noise_level.up")
"""Parts whose inputs do not grow; nor do those of keys and values of captions, and of the text
encoder."""
RATES = OptimizerConfig(peak_rate=1e-2, warmup_steps=0, final_rate=1.0, weight_decay=0.5)


def generator(width: int, base_width: int | None) -> Any:
    """Abstract, with heads of 16 channels."""
    dit = dataclasses.replace(DIT, width=width, heads=width // 16, base_width=base_width)
    sizes = {"channels": VAE.channels, "vocabulary": VOCABULARY}
    return jax.eval_shape(lambda: Generator(dit, TEXT, **sizes, rngs=nnx.Rngs(0)))


def by_name(model: Any, function: Callable[[nnx.Variable], Any]) -> dict[str, Any]:
    is_leaf = lambda leaf: isinstance(leaf, nnx.Variable)  # noqa: E731
    return named(jax.tree.map(lambda v: v.replace(function(v)), model, is_leaf=is_leaf))


def of_adam(variable: nnx.Variable) -> float:
    return update_scale(variable, orthogonalised=False)


def grows(name: str) -> bool:
    """Whether a parameter is a matrix whose inputs are the transformer's own width or MLP."""
    part = name.removeprefix("dit.").rpartition(".")[0]
    of_caption = part in ("blocks.cross_attention.key", "blocks.cross_attention.value")
    inside = name.startswith("dit.") and name.endswith("kernel")
    return inside and not of_caption and part not in OUTSIDE


def test_adam_goes_as_far_as_inputs_grow() -> None:
    scales = by_name(generator(96, 32), of_adam)
    assert {name for name in scales if grows(name)} >= {
        "dit.out.kernel",
        "dit.modulation.kernel",
        "dit.final_modulation.kernel",
        "dit.noise_level.down.kernel",
        "dit.blocks.attention.query.kernel",
        "dit.blocks.cross_attention.out.kernel",
        "dit.blocks.mlp.down.kernel",
    }
    for name, scale in scales.items():
        assert scale == (pytest.approx(1 / 3) if grows(name) else 1), name


def test_muon_keeps_its_largest_singular_value_by_outputs_over_inputs() -> None:
    """Its updates are orthogonal matrices times sqrt(max(inputs, outputs)) (consistent_rms)."""
    wide, narrow = generator(96, 32), generator(32, None)
    scales = by_name(wide, lambda variable: update_scale(variable, orthogonalised=True))
    shapes = {"wide": by_name(wide, np.shape), "narrow": by_name(narrow, np.shape)}
    for name in named(hidden_matrices(wide)):
        if not name.endswith("kernel"):
            continue
        share = []
        for key, scale in (("wide", scales[name]), ("narrow", 1.0)):
            inputs, outputs = shapes[key][name][-2:]
            share.append(scale * max(inputs, outputs) ** 0.5 / (outputs / inputs) ** 0.5)
        assert share[0] == pytest.approx(share[1]), name
    assert scales["dit.blocks.mlp.up.kernel"] == pytest.approx(3**-0.5)


@pytest.mark.parametrize("base_width", [None, 64])
def test_nothing_is_scaled_without_a_base_or_at_it(base_width: int | None) -> None:
    assert set(by_name(generator(64, base_width), of_adam).values()) == {1.0}


def test_parameters_are_the_same_tree() -> None:
    shapes = [by_name(generator(64, base), np.shape) for base in (None, 32)]
    assert shapes[0] == shapes[1]


def test_a_base_that_does_not_split_into_whole_heads_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="dit.base_width=24 does not split into heads of width 16"
    ):
        dataclasses.replace(DIT, width=64, heads=4, base_width=24)


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_an_optimizer_scales_updates_and_not_decay(method: Any) -> None:
    """Against the same optimizer at the base width, of which it must have the same state too."""
    plain = Linear(64, 64, ("embed", "mlp"), rngs=nnx.Rngs(0))
    wide = jax.tree.map(jnp.copy, plain)
    tell_base_shapes(wide, Linear(16, 16, ("embed", "mlp"), rngs=nnx.Rngs(0)))
    scale = 0.5 if method == "muon" else 0.25

    def moves(model: Linear, decay: float, size: float) -> tuple[Any, Any]:
        config = dataclasses.replace(RATES, method=method, weight_decay=decay)
        optimizer = make_optimizer(config, 10)
        gradient = jax.tree.map(lambda leaf: size * jnp.sin(1e4 * leaf), model)
        update = jax.jit(lambda: optimizer.update(gradient, optimizer.init(model), model))
        updates, state = update()
        return updates.kernel[...], [leaf.shape for leaf in jax.tree.leaves(state)]

    rate = float(rate_schedule(RATES, 10)(0))
    (by_plain, state), (by_wide, same) = moves(plain, 0.0, 1.0), moves(wide, 0.0, 1.0)
    np.testing.assert_allclose(by_wide, scale * by_plain, rtol=1e-5)
    np.testing.assert_allclose(moves(wide, 0.5, 0.0)[0], -rate * 0.5 * plain.kernel[...], rtol=1e-5)
    assert state == same
