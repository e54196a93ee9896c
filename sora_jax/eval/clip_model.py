"""CLIP (arXiv:2103.00020): a tower for pictures and one for texts, which end in one space.

Arrays have the names and shapes that files of Hugging Face's CLIP give them. There is no way to
make a CLIP without weights: nothing here draws any.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

Weights = Mapping[str, np.ndarray]
Arrays = Mapping[str, Any]  # those of a layer are stacked over layers

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # as OpenAI trained it
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """A transformer, normalised before its blocks' halves: `activation` is of ACTIVATIONS."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    activation: str
    epsilon: float


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """`side` and `patch`: pixels of a picture's and a patch's sides. `context`: the most tokens of
    a text. `end`: the token whose place a text is read at, or None for the largest id."""

    vision: TowerConfig
    text: TowerConfig
    side: int
    patch: int
    vocabulary: int
    context: int
    end: int | None
    projection: int


@dataclasses.dataclass(frozen=True, eq=False)
class CLIP:
    """`arrays` as `stacked` makes them, on all devices of this process. `tokens`: ids of a text,
    first and last token included, no more than the context. `name`: a hash of all that features
    depend on, for metrics."""

    name: str
    directory: Path
    config: CLIPConfig
    arrays: Arrays
    tokens: Callable[[str], list[int]]


def weight_shapes(config: CLIPConfig) -> dict[str, tuple[int, ...]]:
    """The arrays that a CLIP is made of. Kernels are [outputs, inputs]."""
    vision, text = config.vision.width, config.text.width
    places = (config.side // config.patch) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (vision,),
        "vision_model.embeddings.patch_embedding.weight": (vision, 3, config.patch, config.patch),
        "vision_model.embeddings.position_embedding.weight": (places, vision),
        "visual_projection.weight": (config.projection, vision),
        "text_model.embeddings.token_embedding.weight": (config.vocabulary, text),
        "text_model.embeddings.position_embedding.weight": (config.context, text),
        "text_projection.weight": (config.projection, text),
    }
    norms = {"vision_model.pre_layrnorm": vision, "vision_model.post_layernorm": vision}
    for norm, width in (norms | {"text_model.final_layer_norm": text}).items():
        shapes |= {f"{norm}.{part}": (width,) for part in ("weight", "bias")}
    for name, tower in _towers(config).items():
        for layer in range(tower.depth):
            prefix = f"{name}.encoder.layers.{layer}."
            shapes |= {f"{prefix}{part}": shape for part, shape in _layer_shapes(tower).items()}
    return shapes


def _towers(config: CLIPConfig) -> dict[str, TowerConfig]:
    return {"vision_model": config.vision, "text_model": config.text}


def _layer_shapes(tower: TowerConfig) -> dict[str, tuple[int, ...]]:
    sizes = {
        f"self_attn.{part}_proj": (tower.width, tower.width) for part in ("q", "k", "v", "out")
    }
    sizes |= {"mlp.fc1": (tower.mlp_width, tower.width), "mlp.fc2": (tower.width, tower.mlp_width)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, kernel in sizes.items():
        shapes |= {f"{name}.weight": kernel, f"{name}.bias": kernel[:1]}
    for norm in ("layer_norm1", "layer_norm2"):
        shapes |= {f"{norm}.{part}": (tower.width,) for part in ("weight", "bias")}
    return shapes


def stacked(weights: Weights, config: CLIPConfig) -> Arrays:
    """Arrays of `weight_shapes` in float32, those of a tower's layers as one at TOWER.layers."""
    arrays: dict[str, Any] = {
        name: np.asarray(weights[name], np.float32)
        for name in weight_shapes(config)
        if ".layers." not in name
    }
    for name, tower in _towers(config).items():
        prefixes = [f"{name}.encoder.layers.{layer}." for layer in range(tower.depth)]
        arrays[f"{name}.layers"] = {
            part: np.stack([np.asarray(weights[prefix + part], np.float32) for prefix in prefixes])
            for part in _layer_shapes(tower)
        }
    return arrays


def by_row_and_whole() -> tuple[NamedSharding, NamedSharding]:
    """How rows of a batch, and weights, lie on the devices of this process: what others do, no
    process waits for."""
    mesh = Mesh(np.asarray(jax.local_devices()), ("rows",))
    return NamedSharding(mesh, PartitionSpec("rows")), NamedSharding(mesh, PartitionSpec())


@functools.partial(jax.jit, static_argnames="config")
def image_features(
    arrays: Arrays, pixels: Float[Array, "b h w 3"], config: CLIPConfig
) -> Float[Array, "b p"]:
    """Of pictures of `config.side` squared, normalised as CLIP takes them; not of unit length."""
    # The same features on every accelerator: by default some multiply with 10 bits.
    with jax.default_matmul_precision("highest"):
        embeddings = "vision_model.embeddings"
        p = config.patch
        patches = rearrange(pixels, "b (i p) (j q) c -> b (i j) (c p q)", p=p, q=p)
        kernel = arrays[f"{embeddings}.patch_embedding.weight"]
        x = patches @ kernel.reshape(len(kernel), -1).T
        own = jnp.broadcast_to(arrays[f"{embeddings}.class_embedding"], (len(x), 1, x.shape[2]))
        x = jnp.concatenate([own, x], 1) + arrays[f"{embeddings}.position_embedding.weight"]
        tower = config.vision
        x = _norm(arrays, "vision_model.pre_layrnorm", x, tower.epsilon)
        x = _blocks(tower, arrays["vision_model.layers"], x, causal=False)
        x = _norm(arrays, "vision_model.post_layernorm", x[:, 0], tower.epsilon)
        return x @ arrays["visual_projection.weight"].T


@functools.partial(jax.jit, static_argnames="config")
def text_features(
    arrays: Arrays, tokens: Int[Array, "b l"], ends: Int[Array, " b"], config: CLIPConfig
) -> Float[Array, "b p"]:
    """Of texts of up to `config.context` tokens, read at the places `ends`; what stands after them
    changes nothing. Not of unit length."""
    with jax.default_matmul_precision("highest"):
        embeddings = "text_model.embeddings"
        x = arrays[f"{embeddings}.token_embedding.weight"][tokens]
        x += arrays[f"{embeddings}.position_embedding.weight"][: tokens.shape[1]]
        x = _blocks(config.text, arrays["text_model.layers"], x, causal=True)
        x = jnp.take_along_axis(x, ends[:, None, None], 1)[:, 0]
        x = _norm(arrays, "text_model.final_layer_norm", x, config.text.epsilon)
        return x @ arrays["text_projection.weight"].T


def _blocks(
    tower: TowerConfig, layers: Arrays, x: Float[Array, "b n d"], causal: bool
) -> Float[Array, "b n d"]:
    """All blocks of a tower: attention, then MLP, each added to what it is given."""

    def block(x: Array, layer: Arrays) -> tuple[Array, None]:
        y = _norm(layer, "layer_norm1", x, tower.epsilon)
        q, k, v = (
            rearrange(
                _linear(layer, f"self_attn.{part}_proj", y), "b n (h k) -> b n h k", h=tower.heads
            )
            for part in ("q", "k", "v")
        )
        y = rearrange(
            jax.nn.dot_product_attention(q, k, v, is_causal=causal), "b n h k -> b n (h k)"
        )
        x += _linear(layer, "self_attn.out_proj", y)
        y = _linear(layer, "mlp.fc1", _norm(layer, "layer_norm2", x, tower.epsilon))
        return x + _linear(layer, "mlp.fc2", ACTIVATIONS[tower.activation](y)), None

    return jax.lax.scan(block, x, layers)[0]


def _linear(arrays: Arrays, name: str, x: Float[Array, "b n i"]) -> Float[Array, "b n o"]:
    return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]


def _norm(
    arrays: Arrays, name: str, x: Float[Array, "... d"], epsilon: float
) -> Float[Array, "... d"]:
    x = x - x.mean(-1, keepdims=True)
    y = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon)
    return y * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]
