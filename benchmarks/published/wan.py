"""MaxDiffusion's training step of WAN 2.1 14B, in plain JAX: what the compiler is given of it.

Follows the public model of AI-Hypercomputer/maxdiffusion: bfloat16 parameters and moments of AdamW,
layers in one scan, tokens split over the mesh axis context, parameters too, keys and values
gathered by splash attention.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.published.splash import SplashBlocks, attend

Parameters = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Wan:
    """The model on clips of 81 frames of 1280 x 720. offloaded: names of what waits in the host's
    memory for the backward pass; the rest is computed again."""

    rows: int  # in all
    blocks: SplashBlocks
    offloaded: tuple[str, ...] = ()
    layers: int = 40
    width: int = 5120
    heads: int = 40
    mlp: int = 13824
    tokens: int = 21 * 45 * 80
    text_tokens: int = 512
    text_width: int = 4096
    patch: int = 64

    def lengths(self, ways: int) -> tuple[int, int]:
        """Tokens of queries and of keys on a device, split over so many."""
        return self.tokens // ways, self.tokens


def layouts(model: Wan) -> tuple[Parameters, Parameters]:
    """Shapes and mesh axes of the parameters; those of layers have the layers in front."""
    width, mlp = model.width, model.mlp
    shapes: dict[str, tuple[int, ...]] = {}
    axes: dict[str, tuple[Any, ...]] = {}
    for attention in ("self", "cross"):
        for name in ("query", "key", "value", "out"):
            shapes[f"{attention}_{name}"] = (width, width)
            axes[f"{attention}_{name}"] = (
                (None, None, "context") if name == "out" else (None, "context", None)
            )
            shapes[f"{attention}_{name}_bias"] = (width,)
        for name in ("query_norm", "key_norm"):
            shapes[f"{attention}_{name}"] = (width,)
    shapes |= {"up": (width, mlp), "up_bias": (mlp,), "down": (mlp, width), "down_bias": (width,)}
    axes |= {"up": (None, None, "context"), "down": (None, "context", None)}
    shapes |= {"norm": (width,), "norm_bias": (width,), "table": (6, width)}
    layered = {name: (model.layers, *shape) for name, shape in shapes.items()}
    top = {
        "patches": (model.patch, width),
        "text_1": (model.text_width, width),
        "text_2": (width, width),
        "time_1": (256, width),
        "time_2": (width, width),
        "time_3": (width, 6 * width),
        "table": (2, width),
        "out": (width, model.patch),
    }
    split = {"time_3": ("context", None), "out": ("context", None)}
    return (
        {"layers": layered, **top},
        {
            "layers": {name: axes.get(name, ()) for name in shapes},
            **{name: split.get(name, ()) for name in top},
        },
    )


def lowered(model: Wan, mesh: Mesh) -> jax.stages.Lowered:
    """The whole training step, lowered for the mesh with axes data and context."""
    optimizer = optax.adamw(1e-5, 0.9, 0.999, weight_decay=0.0)
    shapes, axes = layouts(model)

    def array(shape: tuple[int, ...], spec: tuple[Any, ...], dtype: Any = jnp.bfloat16) -> Any:
        return jax.ShapeDtypeStruct(
            shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
        )

    parameters = jax.tree.map(array, shapes, axes, is_leaf=lambda x: isinstance(x, tuple))
    state = optax.tree_map_params(
        optimizer,
        lambda leaf, like: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=like.sharding),
        jax.eval_shape(optimizer.init, parameters),
        parameters,
        transform_non_params=lambda leaf: array(leaf.shape, (), leaf.dtype),
    )
    rows = model.rows
    batch = {
        "noisy": array((rows, model.tokens, model.patch), ("data", "context")),
        "target": array((rows, model.tokens, model.patch), ("data", "context")),
        "text": array((rows, model.text_tokens, model.text_width), ("data", "context")),
        "time": array((rows,), ("data",), jnp.float32),
        "angles": array((model.tokens, 64), ("context",), jnp.float32),
    }

    def step(parameters: Any, state: Any, batch: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, batch, model, mesh)
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    out = jax.tree.map(lambda leaf: leaf.sharding, (parameters, state))
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=(*out, None))
    return jitted.lower(parameters, state, batch)


def loss_of(parameters: Parameters, batch: Parameters, model: Wan, mesh: Mesh) -> jax.Array:
    """Mean squared error of the predicted velocity."""
    rates = jnp.exp(-jnp.log(10_000.0) * jnp.arange(128) / 128)
    phases = batch["time"][:, None] * rates
    time = jnp.concatenate([jnp.cos(phases), jnp.sin(phases)], -1)
    time = jax.nn.silu(time @ parameters["time_1"]) @ parameters["time_2"]
    shifts = (jax.nn.silu(time) @ parameters["time_3"]).reshape(-1, 6, model.width)
    text = jax.nn.gelu(batch["text"] @ parameters["text_1"]) @ parameters["text_2"]
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=list(model.offloaded),
        offload_src="device",
        offload_dst="pinned_host",
    )

    @functools.partial(
        jax.checkpoint, policy=policy if model.offloaded else None, prevent_cse=False
    )
    def block(x: jax.Array, weights: Parameters) -> tuple[jax.Array, None]:
        return _block(x, text, shifts, batch["angles"], weights, model, mesh), None

    x, _ = jax.lax.scan(block, batch["noisy"] @ parameters["patches"], parameters["layers"])
    shift, scale = jnp.split(parameters["table"] + time[:, None], 2, 1)
    x = (_normalised(x) * (1 + scale) + shift).astype(jnp.bfloat16)
    error = (x @ parameters["out"]).astype(jnp.float32) - batch["target"].astype(jnp.float32)
    return jnp.mean(error**2)


def _block(
    x: jax.Array,
    text: jax.Array,
    shifts: jax.Array,
    angles: jax.Array,
    weights: Parameters,
    model: Wan,
    mesh: Mesh,
) -> jax.Array:
    parts = jnp.split(weights["table"] + shifts.astype(jnp.float32), 6, 1)
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
    by_tokens = NamedSharding(mesh, PartitionSpec("data", "context"))
    x = jax.lax.with_sharding_constraint(x, by_tokens)
    x = checkpoint_name(x, "hidden_states")
    text = jax.lax.with_sharding_constraint(text, by_tokens)
    attention = functools.partial(_attention, weights=weights, model=model, mesh=mesh)
    y = (_normalised(x) * (1 + scale) + shift).astype(jnp.bfloat16)
    mixed = attention("self", y, y, angles)
    x = (x.astype(jnp.float32) + mixed * gate).astype(jnp.bfloat16)
    y = _normalised(x) * weights["norm"] + weights["norm_bias"]
    x = x + attention("cross", y.astype(jnp.bfloat16), text, None)
    y = (_normalised(x) * (1 + mlp_scale) + mlp_shift).astype(jnp.bfloat16)
    y = checkpoint_name(jax.nn.gelu(y @ weights["up"] + weights["up_bias"]), "ffn_activation")
    y = y @ weights["down"] + weights["down_bias"]
    return (x.astype(jnp.float32) + y.astype(jnp.float32) * mlp_gate).astype(jnp.bfloat16)


def _attention(
    which: str,
    x: jax.Array,
    source: jax.Array,
    angles: jax.Array | None,
    *,
    weights: Parameters,
    model: Wan,
    mesh: Mesh,
) -> jax.Array:
    """Self-attention, or to the text; queries and keys are normalised over all heads together."""
    arrays = []
    for name in ("query", "key", "value"):
        given = x if name == "query" else source
        y = given @ weights[f"{which}_{name}"] + weights[f"{which}_{name}_bias"]
        if name != "value":
            wide = y.astype(jnp.float32)
            wide *= jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + 1e-6)
            y = (wide * weights[f"{which}_{name}_norm"]).astype(jnp.bfloat16)
        y = jnp.swapaxes(y.reshape(*y.shape[:2], model.heads, -1), 1, 2)
        arrays.append(_rotated(y, angles) if angles is not None and name != "value" else y)
    of_query = PartitionSpec("data", None, "context", None)
    mixed = attend(
        *arrays,
        mesh=mesh,
        of_query=of_query,
        of_key=PartitionSpec("data", None, None, None),
        blocks=model.blocks if which == "self" else model.blocks.for_text(),
        name=f"{which}_attn",
    )
    mixed = jnp.swapaxes(mixed, 1, 2).reshape(x.shape)
    return mixed @ weights[f"{which}_out"] + weights[f"{which}_out_bias"]


def _normalised(x: jax.Array) -> jax.Array:
    """In float32."""
    wide = x.astype(jnp.float32)
    wide -= jnp.mean(wide, -1, keepdims=True)
    return wide * jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + 1e-6)


def _rotated(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotary embedding of [b h n k] by pairs of neighbours."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    left, right = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([left * cosine - right * sine, right * cosine + left * sine], -1)
    return turned.reshape(x.shape).astype(x.dtype)
