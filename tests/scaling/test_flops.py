"""FLOPs agree with the programs: matmul for matmul with JAX's, and nearly with XLA's own count."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.extend.core import Literal, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

from sora_jax.config import ConfigError
from sora_jax.models.dit import DiT, DiTConfig
from sora_jax.models.generator import Generator
from sora_jax.models.text import TextConfig, TextEncoder
from sora_jax.models.vae import VAE, Convolution, VAEConfig
from sora_jax.nn import flash_backward, flash_forward, flash_kernels
from sora_jax.nn.attention import AttentionConfig
from sora_jax.nn.kernels import KernelName
from sora_jax.nn.stack import Remat
from sora_jax.scaling.flops import (
    Flops,
    Row,
    count_parameters,
    dit_flops,
    hardware_flops,
    text_flops,
    train_flops,
    vae_chunk_flops,
    vae_flops,
)
from sora_jax.types import Layout, Text

# No two sizes alike, so that none stands in for another.
DIT = DiTConfig(depth=3, width=48, heads=2, mlp_ratio=3.5, patch=2)
ROW = Row(tokens=26, channels=5, text_tokens=11, text_width=32, levels=3)
TEXT = TextConfig(depth=2, width=32, heads=4)
VOCABULARY = 19
# Large enough that matmuls outweigh the elementwise work, which XLA counts and we do not.
LARGE = DiTConfig(depth=2, width=512, heads=4, unroll=True)
LARGE_ROW = Row(tokens=512, channels=16, text_tokens=64, text_width=256, levels=2)
VIDEO_AUTOENCODER = VAEConfig(channels=8, widths=(64, 96), folds=((1, 2), (2, 2)), blocks=1)
HEIGHT, WIDTH = 32, 24


def test_clips_that_share_a_row_are_as_much_work_as_in_rows_of_their_own() -> None:
    one = Row(tokens=26, channels=5, text_tokens=11, text_width=32)
    three = dataclasses.replace(one, tokens=78, text_tokens=33, levels=6, clips=3)
    alone, together = dit_flops(DIT, one), dit_flops(DIT, three)
    for part in ("attention", "cross_attention", "projections", "mlp"):
        assert getattr(together, part) == 3 * getattr(alone, part), part
    trained = train_flops(DIT, three, TEXT) - train_flops(DIT, three)
    assert trained > 3 * 3 * text_flops(TEXT, 11) * 0.99
    assert dit_flops(DIT, dataclasses.replace(three, clips=1)).attention == 9 * alone.attention


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def tokens_and_layout(config: DiTConfig, row: Row) -> tuple[jax.ShapeDtypeStruct, Layout]:
    def integers(size: int) -> Any:
        return array(1, size, dtype=jnp.int32)

    layout = Layout(
        coordinates=array(1, row.tokens, 3),
        segments=integers(row.tokens),
        level_index=integers(row.tokens),
        noise_levels=array(1, row.levels),
        level_segments=integers(row.levels),
        given_segments=integers(row.tokens),
    )
    return array(1, row.tokens, config.patch**2 * row.channels), layout


def forward_program(config: DiTConfig, row: Row) -> tuple[Any, ...]:
    """The transformer and the shapes of what it is applied to; nothing here is ever computed."""
    model = jax.eval_shape(lambda: DiT(config, row.channels, row.text_width, rngs=nnx.Rngs(0)))
    segments = array(1, row.text_tokens, dtype=jnp.int32)
    text = Text(array(1, row.text_tokens, row.text_width), segments)
    return DiT.__call__, model, *tokens_and_layout(config, row), text


def training_program(config: DiTConfig, row: Row, text: TextConfig | None) -> tuple[Any, ...]:
    """Loss and gradient, of the transformer alone or of the generator with its text encoder."""
    if text is None:
        forward, *arguments = forward_program(config, row)
    else:
        kinds = {"channels": row.channels, "vocabulary": VOCABULARY}
        model = jax.eval_shape(lambda: Generator(config, text, **kinds, rngs=nnx.Rngs(0)))
        ids = array(1, row.text_tokens, dtype=jnp.int32)
        arguments = [model, *tokens_and_layout(config, row), ids]

        def forward(model: Generator, tokens: Any, layout: Layout, ids: Any) -> Any:
            return model(tokens, layout, model.encode_text(ids))

    def loss(model: Any, *inputs: Any) -> Any:
        return jnp.mean(forward(model, *inputs) ** 2)

    return jax.value_and_grad(loss), *arguments


def autoencoder_programs(config: VAEConfig, frames: int) -> tuple[tuple[Any, ...], ...]:
    """The encoder and the decoder of a clip."""
    model = jax.eval_shape(lambda: VAE(config, rngs=nnx.Rngs(0)))
    video = array(1, frames, HEIGHT, WIDTH, 3)
    cells = (frames - 1) // config.temporal + 1, HEIGHT // config.spatial, WIDTH // config.spatial
    return (VAE.encode, model, video), (VAE.decode, model, array(1, *cells, config.channels))


def traced_flops(function: Any, *arguments: Any) -> int:
    """FLOPs of every matmul that the results of a traced function depend on."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return matmul_flops(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def matmul_flops(jaxpr: Any) -> int:
    """The body of a loop counts for every turn, that of a Pallas kernel for every block."""
    variables = [v for equation in jaxpr.eqns for v in equation.invars] + list(jaxpr.outvars)
    read = {v for v in variables if not isinstance(v, Literal)}
    flops = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        assert name not in ("conv_general_dilated", "while")  # they would need rules of their own
        times = 1
        if name == "scan":
            times = params["length"]
        elif name == "pallas_call":  # those that nobody reads JAX leaves for XLA to drop
            used = not read.isdisjoint(equation.outvars)
            times = math.prod(params["grid_mapping"].grid) if used else 0
        elif name == "dot_general":
            flops += dot_flops(equation)
        flops += times * sum(matmul_flops(inner) for inner in jaxprs_in_params(params))
    return flops


def dot_flops(equation: Any) -> int:
    """0 without an axis that either operand has alone: that is no matmul, but a sum of products."""
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    of, result = equation.invars[0].aval, equation.outvars[0].aval
    if result.ndim == len(batch):
        return 0
    return 2 * result.size * math.prod(of.shape[axis] for axis in contracted)


def xla_flops(function: Any, *arguments: Any) -> float:
    """XLA's count, which has elementwise work in it, and the body of a loop once.

    Of the compiled program, since that is what runs: in the lowered one, zeros before a clip are
    not yet the padding of a convolution.
    """
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("config", "row"),
    [
        (DIT, ROW),
        (dataclasses.replace(DIT, depth=1, patch=1, mlp_ratio=4.0), ROW),
        (dataclasses.replace(DIT, width=64, heads=4), dataclasses.replace(ROW, levels=1)),
    ],
)
def test_forward_is_exact(config: DiTConfig, row: Row) -> None:
    assert dit_flops(config, row).total == traced_flops(*forward_program(config, row))


RECOMPUTED = dataclasses.replace(TEXT, recompute=True)


@pytest.mark.parametrize("text", [None, TEXT, RECOMPUTED], ids=["given", "trained", "recomputed"])
@pytest.mark.parametrize("remat", ["none", "matmuls", "attention", "full"])
def test_training_and_what_is_recomputed_are_exact(remat: Remat, text: TextConfig | None) -> None:
    config = dataclasses.replace(DIT, remat=remat)
    found = traced_flops(*training_program(config, ROW, text))
    assert hardware_flops(config, ROW, text) == found
    assert train_flops(config, ROW, text) == train_flops(DIT, ROW, text)
    nothing_again = remat == "none" and text != RECOMPUTED
    assert (hardware_flops(config, ROW, text) == train_flops(DIT, ROW, text)) == nothing_again


@pytest.mark.parametrize("remat", ["none", "full"])
def test_the_attention_of_given_tokens_apart_is_counted_as_computed(remat: Remat) -> None:
    apart = dataclasses.replace(DIT, given_apart=True, remat=remat)
    found = traced_flops(*training_program(apart, ROW, None))
    assert hardware_flops(apart, ROW) == found
    assert train_flops(apart, ROW) == train_flops(DIT, ROW)


def test_text_encoder_is_exact() -> None:
    model = jax.eval_shape(lambda: TextEncoder(TEXT, VOCABULARY, rngs=nnx.Rngs(0)))
    ids = array(1, ROW.text_tokens, dtype=jnp.int32)
    assert text_flops(TEXT, ROW.text_tokens) == traced_flops(TextEncoder.__call__, model, ids)


def test_autoencoder_by_matmul_is_exact() -> None:
    config = dataclasses.replace(VIDEO_AUTOENCODER, convolution="matmul")
    for frames in (1, 5):
        encode, decode = autoencoder_programs(config, frames)
        found = traced_flops(*encode), traced_flops(*decode)
        assert vae_flops(config, frames, HEIGHT, WIDTH) == found


def test_forward_agrees_with_xla() -> None:
    counted = dit_flops(LARGE, LARGE_ROW).total
    assert xla_flops(*forward_program(LARGE, LARGE_ROW)) == pytest.approx(counted, rel=0.03)


def test_training_agrees_with_xla() -> None:
    counted = train_flops(LARGE, LARGE_ROW)
    assert xla_flops(*training_program(LARGE, LARGE_ROW, None)) == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize(("width", "tokens"), [(128, 512), (128, 2048), (256, 512), (256, 2048)])
def test_training_agrees_with_xla_over_sizes(width: int, tokens: int) -> None:
    config = dataclasses.replace(LARGE, width=width, heads=width // 64)
    row = dataclasses.replace(LARGE_ROW, tokens=tokens)
    counted = train_flops(config, row)
    assert xla_flops(*training_program(config, row, None)) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("remat", ["matmuls", "attention", "full"])
def test_what_is_recomputed_agrees_with_xla(remat: Remat) -> None:
    # In loops, forward and back, which XLA counts as one block. Were they unrolled, XLA would see
    # some of what is computed again, and keep it after all.
    config = dataclasses.replace(LARGE, depth=3, unroll=False, remat=remat)
    counted = hardware_flops(dataclasses.replace(config, depth=1), LARGE_ROW)
    assert xla_flops(*training_program(config, LARGE_ROW, None)) == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize(("convolution", "frames"), [("direct", 5), ("direct", 1), ("matmul", 5)])
def test_autoencoder_agrees_with_xla(convolution: Convolution, frames: int) -> None:
    config = dataclasses.replace(VIDEO_AUTOENCODER, convolution=convolution)
    counted = vae_flops(config, frames, HEIGHT, WIDTH)
    for program, flops in zip(autoencoder_programs(config, frames), counted, strict=True):
        assert xla_flops(*program) == pytest.approx(flops, rel=0.03)


@pytest.mark.parametrize("first", [True, False])
def test_a_chunk_of_the_autoencoder_agrees_with_xla(first: bool) -> None:
    frames = 3
    counted = vae_chunk_flops(VIDEO_AUTOENCODER, frames, HEIGHT, WIDTH, first=first)
    model = jax.eval_shape(lambda: VAE(VIDEO_AUTOENCODER, rngs=nnx.Rngs(0)))
    side = VIDEO_AUTOENCODER.spatial

    def chunk(kind: str, first: bool) -> jax.ShapeDtypeStruct:
        if kind == "decode":
            return array(1, frames, HEIGHT // side, WIDTH // side, VIDEO_AUTOENCODER.channels)
        return array(1, VIDEO_AUTOENCODER.temporal * (frames - first) + first, HEIGHT, WIDTH, 3)

    for kind, flops in zip(("encode", "decode"), counted, strict=True):
        code = getattr(VAE, f"{kind}_chunk")
        state = None
        if not first:
            *_, state = jax.eval_shape(code, model, chunk(kind, True), None)
        program = (code, model, chunk(kind, first), state)
        assert xla_flops(*program) == pytest.approx(flops, rel=0.03)


def difference(config: DiTConfig, row: Row, **changes: int) -> dict[str, int]:
    """How much each part grows when sizes change; those of the row go by the row's names."""
    of_row = {field.name for field in dataclasses.fields(Row)} & set(changes)
    other_row = dataclasses.replace(row, **{name: changes.pop(name) for name in of_row})
    before = dit_flops(config, row)
    after = dit_flops(dataclasses.replace(config, **changes), other_row)
    parts = [field.name for field in dataclasses.fields(Flops)]
    return {part: getattr(after, part) - getattr(before, part) for part in parts}


def test_one_block_more() -> None:
    n, d, m, length, e = ROW.tokens, DIT.width, ROW.levels, ROW.text_tokens, ROW.text_width
    assert difference(DIT, ROW, depth=DIT.depth + 1) == {
        "attention": 4 * n * n * d,
        "cross_attention": 4 * n * length * d,
        "projections": 12 * n * d * d + 4 * length * e * d,
        "mlp": 4 * n * d * 168,
        "modulation": 12 * n * m * d,
        "embedding": 0,
    }


def test_twice_the_tokens() -> None:
    parts = dit_flops(DIT, ROW)
    growth = difference(DIT, ROW, tokens=2 * ROW.tokens)
    assert growth["attention"] == 3 * parts.attention
    assert growth["cross_attention"] == parts.cross_attention
    assert growth["mlp"] == parts.mlp
    # What captions and noise levels cost by themselves does not grow with the tokens.
    assert parts.projections - growth["projections"] == 3 * 4 * 11 * 32 * 48
    assert parts.modulation - growth["modulation"] == 2 * 3 * (256 * 48 + 9 * 48 * 48)
    assert parts.embedding - growth["embedding"] == 2 * 3 * (11 * 32 + 32 * 48)


def test_twice_the_width() -> None:
    parts = dit_flops(DIT, ROW)
    growth = difference(DIT, ROW, width=2 * DIT.width)
    assert growth["attention"] == parts.attention
    assert growth["cross_attention"] == parts.cross_attention
    assert growth["mlp"] == 3 * parts.mlp
    linear = 3 * 4 * ROW.text_tokens * ROW.text_width * DIT.width
    assert growth["projections"] == 3 * (parts.projections - linear) + linear


def test_heads_cost_nothing_and_levels_little() -> None:
    assert set(difference(DIT, ROW, heads=4).values()) == {0}
    growth = difference(DIT, ROW, levels=2 * ROW.levels)
    assert {part for part, flops in growth.items() if flops} == {"modulation", "embedding"}
    assert growth["modulation"] == dit_flops(DIT, ROW).modulation


def test_training_is_thrice_forward_less_what_needs_no_gradient() -> None:
    n, d, m, length, e = ROW.tokens, DIT.width, ROW.levels, ROW.text_tokens, ROW.text_width
    forward = dit_flops(DIT, ROW).total
    patches, places, sinusoids = (2 * n * 20 * d, 2 * n * 36 * d, 2 * m * 256 * d)
    selectors = (6 * DIT.depth + 2) * 2 * n * m * d
    caption = 2 * 2 * m * length * e + 2 * m * e * d + DIT.depth * 4 * length * e * d
    data = patches + places + sinusoids + selectors
    assert train_flops(DIT, ROW) == 3 * forward - data - caption
    # With the text encoder, all of the caption but the weights of its mean needs one.
    joint = 3 * (forward + text_flops(TEXT, length)) - data - 2 * m * length * e
    assert train_flops(DIT, ROW, TEXT) == joint


@pytest.mark.parametrize("remat", ["none", "matmuls", "attention", "full"])
@pytest.mark.parametrize("kernel", ["flash", "splash"])
def test_what_kernels_compute_again_is_exact(
    kernel: KernelName, remat: Remat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def for_pair(*arguments: Any) -> None:  # of two ways to compute a pair of blocks one is taken
        flash_kernels.for_pair(*arguments[:-1], ("whole",))

    for module in (flash_forward, flash_backward):
        monkeypatch.setattr(module, "for_pair", for_pair)
    attention = AttentionConfig(kernel=kernel)
    config = dataclasses.replace(DIT, width=256, remat=remat, attention=attention)
    row = dataclasses.replace(ROW, tokens=256, text_tokens=128)  # they pad to multiples of 128
    assert hardware_flops(config, row) == traced_flops(*training_program(config, row, None))


def test_parameters() -> None:
    make = {
        "dit": lambda: DiT(DIT, ROW.channels, ROW.text_width, rngs=nnx.Rngs(0)),
        "text": lambda: TextEncoder(TEXT, VOCABULARY, rngs=nnx.Rngs(0)),
        "vae": lambda: VAE(VIDEO_AUTOENCODER, rngs=nnx.Rngs(0)),
    }
    # Patches in, places, patches out with their bias; a vector for each word.
    embedding = {"dit": 48 * (20 + 36 + 20) + 20, "text": VOCABULARY * 32, "vae": 0}
    for name, make_model in make.items():
        model = jax.eval_shape(make_model)
        counted = count_parameters(model)
        assert counted.total == sum(leaf.size for leaf in jax.tree.leaves(model))
        assert counted.embedding == embedding[name]
        assert counted.without_embedding == counted.total - counted.embedding


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="row.levels=0 must be positive"):
        dataclasses.replace(ROW, levels=0)
    with pytest.raises(ConfigError, match="text.width=64 is not the row's text_width=32"):
        train_flops(DIT, ROW, dataclasses.replace(TEXT, width=64))
    for size in ((4, 32, 24), (5, 30, 24), (5, 32, 22), (-1, 32, 24)):
        with pytest.raises(ConfigError, match="do not fold: the autoencoder takes 1 . 2k frames"):
            vae_flops(VIDEO_AUTOENCODER, *size)
