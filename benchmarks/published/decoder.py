"""MaxText's decoder and its training step, in plain JAX: what the compiler is given of it.

Follows the public configs of AI-Hypercomputer/maxtext: float32 parameters cast to bfloat16 where
they are used, layers in one scan, logits in bfloat16, AdamW and clipping of the global norm.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.published.splash import SplashBlocks, attend

Parameters = dict[str, Any]
ROWS = ("replica", "fsdp")  # the mesh axes over which a batch is split


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A decoder of text and how it is trained. kept, offloaded: names of what the backward pass
    finds on the device, or in the host's memory; the rest is computed again."""

    layers: int
    width: int
    heads: int
    key_heads: int
    mlp: int
    vocabulary: int
    rows: int  # of a device
    tokens: int
    blocks: SplashBlocks
    kept: tuple[str, ...] = ()
    offloaded: tuple[str, ...] = ()
    moments: str = "float32"
    head: int = 128
    causal: bool = True

    @property
    def parameters(self) -> int:
        of_layer = 2 * (self.heads + self.key_heads) * self.head + 3 * self.mlp
        return self.width * (self.layers * of_layer + 2 * self.vocabulary)


def layouts(model: Decoder) -> tuple[Parameters, Parameters]:
    """Shapes and mesh axes of the parameters; those of layers have these in front."""
    wide, narrow = model.heads * model.head, model.key_heads * model.head
    shapes = {
        "query": (model.width, wide),
        "key": (model.width, narrow),
        "value": (model.width, narrow),
        "out": (wide, model.width),
        "gate": (model.width, model.mlp),
        "up": (model.width, model.mlp),
        "down": (model.mlp, model.width),
        "norm_1": (model.width,),
        "norm_2": (model.width,),
    }
    into, back = (None, "fsdp", "tensor"), (None, "tensor", "fsdp")
    axes: Parameters = {name: back if name in ("out", "down") else into for name in shapes}
    axes |= {"norm_1": (None, "tensor"), "norm_2": (None, "tensor")}
    layered = {name: (model.layers, *shape) for name, shape in shapes.items()}
    top = {
        "embedding": (model.vocabulary, model.width),
        "norm": (model.width,),
        "logits": (model.width, model.vocabulary),
    }
    top_axes = {
        "embedding": ("tensor", "fsdp"),
        "norm": ("tensor",),
        "logits": ("fsdp", "tensor"),
    }
    return {"layers": layered, **top}, {"layers": axes, **top_axes}


def lowered(model: Decoder, mesh: Mesh) -> jax.stages.Lowered:
    """The whole training step, lowered for the mesh with axes replica, fsdp and tensor."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(3e-5, 0.9, 0.95, weight_decay=0.1, mu_dtype=model.moments),
    )
    shapes, axes = layouts(model)

    def sharded(shape: tuple[int, ...], spec: tuple[Any, ...]) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    is_shape = functools.partial(lambda x: isinstance(x, tuple))
    parameters = jax.tree.map(sharded, shapes, axes, is_leaf=is_shape)
    state = jax.eval_shape(optimizer.init, parameters)
    state = optax.tree_map_params(
        optimizer,
        lambda leaf, like: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=like.sharding),
        state,
        parameters,
        transform_non_params=lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec())
        ),
    )
    rows = math.floor(model.rows * mesh.devices.size)
    tokens = jax.ShapeDtypeStruct(
        (rows, model.tokens), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec(ROWS))
    )

    def step(parameters: Any, state: Any, inputs: Any, targets: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, inputs, targets, model, mesh)
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    out = jax.tree.map(lambda leaf: leaf.sharding, (parameters, state))
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=(*out, None))
    return jitted.lower(parameters, state, tokens, tokens)


def loss_of(
    parameters: Parameters, inputs: jax.Array, targets: jax.Array, model: Decoder, mesh: Mesh
) -> jax.Array:
    """Mean cross-entropy; the embedding is a product with one-hot rows (use_iota_embed)."""
    constrained = functools.partial(_constrained, mesh)
    one_hot = jax.nn.one_hot(inputs, model.vocabulary, dtype=jnp.bfloat16)
    x = constrained(one_hot @ parameters["embedding"].astype(jnp.bfloat16), ROWS, None, "tensor")
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=list(model.kept),
        names_which_can_be_offloaded=list(model.offloaded),
        offload_src="device",
        offload_dst="pinned_host",
    )

    @functools.partial(jax.checkpoint, policy=policy, prevent_cse=False)
    def layer(x: jax.Array, weights: Parameters) -> tuple[jax.Array, None]:
        return _layer(x, weights, model, mesh), None

    x, _ = jax.lax.scan(layer, x, parameters["layers"])
    x = _norm(x, parameters["norm"])
    logits = constrained(x @ parameters["logits"].astype(jnp.bfloat16), ROWS, None, "tensor")
    logits = logits.astype(jnp.float32)
    picked = jnp.sum(jax.nn.one_hot(targets, model.vocabulary, dtype=jnp.float32) * logits, -1)
    return jnp.mean(jax.nn.logsumexp(logits, -1) - picked)


def _constrained(mesh: Mesh, x: jax.Array, *axes: Any) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))


def _layer(x: jax.Array, weights: Mapping[str, Any], model: Decoder, mesh: Mesh) -> jax.Array:
    constrained = functools.partial(_constrained, mesh)
    weight = {name: value.astype(jnp.bfloat16) for name, value in weights.items()}
    x = checkpoint_name(constrained(x, ROWS, None, "tensor"), "decoder_layer_input")
    y = constrained(_norm(x, weights["norm_1"]), ROWS, None, "tensor")
    arrays = []
    for name in ("query", "key", "value"):
        projected = constrained(y @ weight[name], ROWS, None, "tensor")
        heads = projected.reshape(*projected.shape[:2], -1, model.head)
        heads = heads if name == "value" else _rotated(heads)
        arrays.append(checkpoint_name(heads, f"{name}_proj"))
    by_heads = [jnp.swapaxes(array, 1, 2) for array in arrays]
    spec = PartitionSpec(ROWS, "tensor", None, None)
    mixed = attend(
        *by_heads,
        mesh=mesh,
        of_query=spec,
        of_key=spec,
        blocks=model.blocks,
        causal=model.causal,
        name="context",
    )
    mixed = jnp.swapaxes(mixed, 1, 2).reshape(*x.shape[:2], -1)
    mixed = constrained(mixed, ROWS, None, "tensor")
    out = constrained(mixed @ weight["out"], ROWS, None, "tensor")
    x = x + checkpoint_name(out, "out_proj")
    y = constrained(_norm(x, weights["norm_2"]), ROWS, None, "tensor")
    gate = checkpoint_name(constrained(y @ weight["gate"], ROWS, None, "tensor"), "mlpwi_0")
    up = checkpoint_name(constrained(y @ weight["up"], ROWS, None, "tensor"), "mlpwi_1")
    hidden = jax.nn.silu(gate.astype(jnp.float32)).astype(jnp.bfloat16) * up
    down = constrained(hidden @ weight["down"], ROWS, None, "tensor")
    return x + checkpoint_name(down, "mlpwo")


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    wide *= jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + 1e-5)
    return (wide * scale).astype(jnp.bfloat16)


def _rotated(x: jax.Array) -> jax.Array:
    """Rotary embedding of [b n h k]."""
    half = x.shape[-1] // 2
    rates = 500_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None] * rates
    cosine, sine = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    left, right = jnp.split(x.astype(jnp.float32), 2, -1)
    turned = [left * cosine - right * sine, right * cosine + left * sine]
    return jnp.concatenate(turned, -1).astype(x.dtype)
