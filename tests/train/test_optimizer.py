"""AdamW and Muon as configured: what decays, how the rate runs, how far a gradient may go."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sora_jax.checkpoints import named
from sora_jax.config import ConfigError
from sora_jax.models.vae import VAE
from sora_jax.nn.layers import Linear
from sora_jax.train.optimizer import (
    OptimizerConfig,
    clip_by_running_norm,
    decaying,
    hidden_matrices,
    kept_in_bfloat16,
    make_optimizer,
    rate_schedule,
)
from tests.tiny import VAE as VAE_CONFIG
from tests.tiny import make_generator, randomised

CONFIG = OptimizerConfig(peak_rate=1e-2, warmup_steps=10, final_rate=0.1, weight_decay=0.5)


@pytest.mark.parametrize(
    "make_model", [make_generator, lambda rngs: VAE(VAE_CONFIG, rngs=rngs)], ids=["dit", "vae"]
)
def test_matrices_decay_and_biases_and_scales_do_not(make_model: nnx.Module) -> None:
    model = jax.eval_shape(lambda: make_model(nnx.Rngs(0)))
    for name, decays in named(decaying(model)).items():
        last = name.split(".")[-1]
        assert decays == (last in ("kernel", "embedding")), name


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_decay_pulls_matrices_alone_when_there_is_no_gradient(method: Any) -> None:
    model = randomised(make_generator)
    optimizer = make_optimizer(dataclasses.replace(CONFIG, method=method), 100)
    update = jax.jit(optimizer.update)
    nothing = jax.tree.map(jnp.zeros_like, model)
    _, state = update(nothing, jax.jit(optimizer.init)(model), model)  # the first rate is 0
    updates, _ = update(nothing, state, model)
    before, moves = named(model), named(updates)
    rate = float(rate_schedule(CONFIG, 100)(1))
    for name in ("dit.blocks.mlp.up.kernel", "dit.out.kernel", "text.embedding"):
        np.testing.assert_allclose(moves[name], -rate * 0.5 * before[name], rtol=1e-5)
    for name in ("dit.blocks.mlp.up.bias", "dit.blocks.text_norm.scale", "text.position_bias"):
        assert not np.asarray(moves[name]).any()


def test_the_rate_is_constant_until_its_last_share_of_the_run() -> None:
    config = dataclasses.replace(CONFIG, decay_share=0.2)
    short, long = rate_schedule(config, 100), rate_schedule(config, 400)
    found = [float(short(step)) for step in (0, 5, 10, 50, 80, 90, 100)]
    np.testing.assert_allclose(found, [0, 5e-3, 1e-2, 1e-2, 1e-2, 5.5e-3, 1e-3], rtol=1e-5)
    # So a short run goes the way of a long one until then, and may branch off it.
    assert [float(short(step)) for step in range(81)] == [float(long(step)) for step in range(81)]
    assert float(
        rate_schedule(dataclasses.replace(config, warmup_steps=0), 100)(0)
    ) == pytest.approx(1e-2)
    with pytest.raises(ConfigError, match="optimizer.decay_share=0.0 must be above 0"):
        dataclasses.replace(CONFIG, decay_share=0.0)


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    schedule = rate_schedule(CONFIG, 110)
    found = [float(schedule(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(found, [0, 5e-3, 1e-2, 5.5e-3, 1e-3], rtol=1e-5, atol=1e-9)


def test_a_run_shorter_than_its_warm_up_has_a_schedule() -> None:
    assert float(rate_schedule(CONFIG, 5)(5)) == pytest.approx(5e-3)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    parameters = {"a": nnx.Param(jnp.zeros(3), axes=(None,))}
    optimizer = make_optimizer(CONFIG, 100)

    def first_moment(scale: float) -> jax.Array:
        gradient = {"a": nnx.Param(scale * jnp.array([3.0, 4.0, 0.0]), axes=(None,))}
        _, state = optimizer.update(gradient, optimizer.init(parameters), parameters)
        return state[1][0].mu["a"][...]

    np.testing.assert_allclose(first_moment(100.0), 0.1 * jnp.array([0.6, 0.8, 0]), rtol=1e-5)
    np.testing.assert_allclose(first_moment(0.1), 0.1 * jnp.array([0.3, 0.4, 0]), rtol=1e-5)


def test_a_gradient_out_of_line_is_clipped_to_its_neighbours() -> None:
    """Against the same means in float64; an outlier does not lift them."""
    clip = clip_by_running_norm(2.0, decay=0.9, warmup=3)
    norms = [1.0, 8.0, 1.2, 0.9, 50.0, 1.1, 50.0, 0.0, 2.0]
    state, mean, found = clip.init(None), 0.0, []
    for number, norm in enumerate(norms):
        limit = np.inf if number < 3 else 2 * mean / (1 - 0.9**number)
        clipped = min(norm, limit)
        gradient = {"a": jnp.asarray([0.6, 0.0]) * norm, "b": jnp.asarray(0.8) * norm}
        updates, state = clip.update(gradient, state)
        mean = 0.9 * mean + 0.1 * clipped
        np.testing.assert_allclose(optax.tree.norm(updates), clipped, rtol=1e-5)
        np.testing.assert_allclose(updates["a"], np.asarray([0.6, 0.0]) * clipped, rtol=1e-5)
        found.append(clipped)
    assert found[1] == 8.0  # too early to tell
    assert found[4] < 10 > found[6]


def test_the_running_norm_is_an_option() -> None:
    plain = make_optimizer(CONFIG, 100)
    adaptive = make_optimizer(dataclasses.replace(CONFIG, adaptive_clip=2.0), 100)
    tree = {"kernel": nnx.Param(jnp.ones((2, 2)), axes=("embed", "mlp"))}
    assert len(jax.tree.leaves(adaptive.init(tree))) == len(jax.tree.leaves(plain.init(tree))) + 2
    with pytest.raises(ConfigError, match="optimizer.adaptive_clip=1.0 must be above 1"):
        dataclasses.replace(CONFIG, adaptive_clip=1.0)


def test_muon_is_for_the_matrices_between_hidden_layers() -> None:
    model = jax.eval_shape(lambda: make_generator(nnx.Rngs(0)))
    chosen = {name.split(".kernel")[0] + ".kernel" for name in named(hidden_matrices(model))}
    assert {"dit.blocks.mlp.up.kernel", "dit.modulation.kernel", "text.blocks.qkv.kernel"} <= chosen
    kernels = {name for name in named(model) if name.endswith("kernel")}
    assert kernels - chosen == {"dit.embed.kernel", "dit.out.kernel", "dit.place.linear.kernel"}
    assert chosen <= kernels


def test_muon_steps_are_orthogonal_and_of_the_size_of_adams() -> None:
    model = randomised(make_generator)
    config = dataclasses.replace(CONFIG, method="muon", weight_decay=0.0)
    optimizer = make_optimizer(config, 100)
    update = jax.jit(optimizer.update)
    gradient = jax.tree.map(lambda leaf: jnp.sin(1e4 * leaf), model)
    _, state = update(gradient, jax.jit(optimizer.init)(model), model)  # the first rate is 0
    moves = named(update(gradient, state, model)[0])
    rate = float(rate_schedule(config, 100)(1))
    for name in ("dit.blocks.mlp.up.kernel", "dit.blocks.attention.query.kernel"):
        for matrix in np.asarray(moves[name], np.float64):  # of each block
            singular = np.linalg.svd(matrix, compute_uv=False)
            assert singular.min() > 0.4 * singular.max(), name
            assert np.sqrt(np.mean(matrix**2)) == pytest.approx(0.2 * rate, rel=0.25)
    # Second step of Nesterov's Adam under an unchanging gradient.
    ahead = 0.9 * (1 - 0.9**2) / (1 - 0.9**3) + 0.1 / (1 - 0.9**2)
    for name in ("dit.out.kernel", "dit.blocks.mlp.up.bias"):
        np.testing.assert_allclose(np.abs(moves[name]), ahead * rate, rtol=1e-3)


def test_muon_takes_a_convolution_as_the_matrix_from_the_cells_under_its_kernel() -> None:
    model = randomised(lambda rngs: VAE(VAE_CONFIG, rngs=rngs))
    optimizer = make_optimizer(dataclasses.replace(CONFIG, method="muon", weight_decay=0.0), 100)
    update = jax.jit(optimizer.update)
    gradient = jax.tree.map(lambda leaf: jnp.sin(1e4 * leaf), model)
    _, state = update(gradient, jax.jit(optimizer.init)(model), model)  # the first rate is 0
    moves = named(update(gradient, state, model)[0])
    kernels = [move for name, move in moves.items() if move.ndim == 5]
    assert len(kernels) == 4
    for kernel in kernels:
        matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular.min() > 0.4 * singular.max()


@pytest.mark.parametrize(
    "changes", [{"peak_rate": 0.0}, {"clip_norm": -1.0}, {"warmup_steps": -1}], ids=str
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be positive, warmup_steps=-?[0-9]+ not negative"):
        OptimizerConfig(**changes)


def test_moments_in_bfloat16_take_half_and_learn_as_well() -> None:
    """A quadratic bowl, 40 steps: the losses stay within a tenth of each other."""
    target = jax.random.normal(jax.random.key(0), (64, 32))
    losses: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for moments in ("float32", "bfloat16"):
        config = dataclasses.replace(CONFIG, weight_decay=0.0, moments=moments)
        optimizer = make_optimizer(config, 100)
        model = Linear(64, 32, ("embed", "mlp"), rngs=nnx.Rngs(0))
        state = optimizer.init(model)

        @jax.jit
        def step(model: Linear, state: Any, optimizer: Any = optimizer) -> tuple[Any, Any, Any]:
            def loss(model: Linear) -> jax.Array:
                return jnp.mean((model.kernel[...] - target) ** 2)

            value, gradients = jax.value_and_grad(loss)(model)
            updates, state = optimizer.update(gradients, state, model)
            return optax.apply_updates(model, updates), state, value

        for _ in range(40):
            model, state, value = step(model, state)
        losses[moments] = float(value)
        sizes[moments] = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert sizes["bfloat16"] < 0.51 * sizes["float32"]


def test_a_moment_in_bfloat16_still_fades() -> None:
    """Where gradients cease, the second moment halves in about 69 steps of beta2 = 0.99."""
    optimizer = kept_in_bfloat16(optax.scale_by_adam(b2=0.99))
    parameters = jnp.zeros(4)
    state = optimizer.init(parameters)
    _, state = optimizer.update(jnp.ones(4), state)
    first = np.asarray(state.nu, np.float32)
    update = jax.jit(optimizer.update)
    for _ in range(69):
        _, state = update(jnp.zeros(4), state)
    np.testing.assert_allclose(np.asarray(state.nu, np.float32) / first, 0.5, atol=0.1)
    with pytest.raises(ConfigError, match=r"beta2=0.999 .* at most 0.996"):
        dataclasses.replace(CONFIG, moments="bfloat16", beta2=0.999)
