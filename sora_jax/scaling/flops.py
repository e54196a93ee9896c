"""Exact matmul FLOPs of the networks, forward, in training and on the device; and parameter counts.

A multiply-add is two FLOPs. Matrix products and convolutions are counted and elementwise work is
not. Padding is: the device multiplies it like the rest. Attention counts every query against every
key. Nothing is derived from the number of parameters (6 x parameters x tokens): attention has work
without parameters, half of all and more in long clips, and captions and noise levels have
parameters that no token meets.

Three readings of one list of matmuls:

    forward    each once
    training   and once more for every operand that needs a gradient: both of most, the weights
               alone where the other operand is data (patches, sinusoids, captions made beforehand)
    hardware   and once more for every time that the backward pass computes it again

How memory is saved changes the last alone. Training FLOPs are the price of what is learned,
hardware FLOPs the work that a device did for it.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal

import jax
from flax import nnx

from sora_jax.config import ConfigError
from sora_jax.models.autoencoders import AutoencoderConfig
from sora_jax.models.dit import DiTConfig
from sora_jax.models.text import TextConfig
from sora_jax.models.vae import VAEConfig
from sora_jax.models.wan_vae import WanVAEConfig
from sora_jax.nn.layers import NoiseLevelEmbedding
from sora_jax.nn.positions import PlaceEmbedding
from sora_jax.scaling.wan_flops import wan_again_flops, wan_flops, wan_pixel_flops

Part = Literal["attention", "cross_attention", "projections", "mlp", "modulation", "embedding"]


@dataclasses.dataclass(frozen=True)
class Row:
    """Sizes of one row of a batch, padding counted. Training has two noise levels a clip.

    Clips that share a row are taken to be alike; what a kernel makes of one clip's queries and
    another's keys is no work that the model asks for.
    """

    tokens: int
    channels: int  # of the latents; a token has patch * patch * channels values
    text_tokens: int  # of the captions of all its clips
    text_width: int  # of the captions' embeddings
    levels: int = 2  # noise levels in the row's table
    clips: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(f"row.{field.name}={getattr(self, field.name)} must be positive")


@dataclasses.dataclass(frozen=True)
class Flops:
    """Of one row through the transformer, forward, by part."""

    attention: int  # scores and values of tokens
    cross_attention: int  # scores and values of the caption
    projections: int  # to queries, keys and values, and out, of both attentions
    mlp: int
    modulation: int  # from noise levels, and the spreading of its tables over the tokens
    embedding: int  # of patches in and out, places and the caption's mean

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in dataclasses.fields(self))


@dataclasses.dataclass(frozen=True)
class _Matmul:
    part: Part
    forward: int  # FLOPs
    gradients: int = 2  # operands that need a gradient: each a matmul of the same size
    again: int = 0  # times that the backward pass computes it again


def dit_flops(config: DiTConfig, row: Row) -> Flops:
    """Of one row through the transformer, forward."""
    by_part = {field.name: 0 for field in dataclasses.fields(Flops)}
    for matmul in _matmuls(config, row, text_trained=False):
        by_part[matmul.part] += matmul.forward
    return Flops(**by_part)


def text_flops(config: TextConfig, text_tokens: int) -> int:
    """Of one caption through the encoder, forward. Its embeddings are looked up, at no FLOPs."""
    qkv, out, gate_and_up, down = 3, 1, 4, 2  # widths x widths of weights
    weights = (qkv + out + gate_and_up + down) * config.width**2
    scores_and_values = 2 * text_tokens * config.width
    return config.depth * 2 * text_tokens * (weights + scores_and_values)


def _captions_flops(config: TextConfig, row: Row) -> int:
    return row.clips * text_flops(config, row.text_tokens // row.clips)


def train_flops(config: DiTConfig, row: Row, text: TextConfig | None = None) -> int:
    """Of one row in a training step, forward and backward, however the step saves memory.

    `text`: the encoder that is trained with the transformer, and counted, unless it says that
    embeddings were made beforehand, as None does. The update of the weights is elementwise. Raises
    ConfigError if the encoder is not as wide as the row's embeddings.
    """
    if text is not None and text.width != row.text_width:
        raise ConfigError(f"text.width={text.width} is not the row's text_width={row.text_width}")
    text = None if text is None or text.source == "given" else text
    matmuls = _matmuls(config, row, text_trained=text is not None)
    # The encoder's first operand is its table of embeddings, which is trained: all have both.
    encoder = 0 if text is None else 3 * _captions_flops(text, row)
    return encoder + sum(matmul.forward * (1 + matmul.gradients) for matmul in matmuls)


def hardware_flops(config: DiTConfig, row: Row, text: TextConfig | None = None) -> int:
    """`train_flops`, and what `config.remat`, the attention kernel and the encoder's blocks compute
    again, and where given tokens are apart, the attention that these have of their own.

    As the loop over blocks computes; in an unrolled one XLA may find equal matmuls and keep one.
    Not counted: what kernels pad to their blocks or skip as padding, and the scores that a ring of
    devices computes again.
    """
    trained = text is not None and text.source == "encoder"
    matmuls = list(_matmuls(config, row, text_trained=trained))
    again = sum(m.forward * m.again for m in matmuls)
    if config.given_apart:
        among_tokens = [m for m in matmuls if m.part == "attention"]
        again += sum(m.forward * (1 + m.gradients + m.again) for m in among_tokens)
    if text is not None and trained and text.recompute:
        last = text.depth * 2 * row.text_tokens * 2 * text.width**2  # whose result no other needs
        again += _captions_flops(text, row) - last
    return train_flops(config, row, text) + again


def _matmuls(config: DiTConfig, row: Row, *, text_trained: bool) -> Iterator[_Matmul]:
    """Every matmul of the transformer on one row. `text_trained`: captions need a gradient."""
    width, n, m = config.width, row.tokens, row.levels
    token_width = config.patch**2 * row.channels
    sinusoids, places = 2 * NoiseLevelEmbedding.num_sinusoids, 4 * PlaceEmbedding.num_periods
    captions = 1 if text_trained else 0

    yield _Matmul("embedding", 2 * n * token_width * width, gradients=1)
    yield _Matmul("embedding", 2 * n * places * width, gradients=1)
    yield _Matmul("embedding", 2 * m * row.text_tokens * row.text_width, gradients=captions)
    yield _Matmul("embedding", 2 * m * row.text_width * width, gradients=1 + captions)
    yield _Matmul("embedding", 2 * n * width * token_width)
    yield _Matmul("modulation", 2 * m * sinusoids * width, gradients=1)
    yield _Matmul("modulation", 2 * m * width * width)
    yield _Matmul("modulation", 2 * m * width * 6 * width)
    yield _Matmul("modulation", 2 * m * width * 2 * width)
    for _ in range(2):  # the last shift and scale; what selects them needs no gradient
        yield _Matmul("modulation", 2 * n * m * width, gradients=1)
    for _ in range(config.depth):
        yield from _block_matmuls(config, row, captions)


def _block_matmuls(config: DiTConfig, row: Row, captions: int) -> Iterator[_Matmul]:
    """Of one block. `captions`: 1 if captions need a gradient, else 0."""
    width, n, m, length = config.width, row.tokens, row.levels, row.text_tokens
    remat = 0 if config.remat == "none" else 1
    by_weights = 0 if config.remat == "matmuls" else remat
    kept = config.remat in ("matmuls", "attention", "offload")
    scores, values = _attention_again(config, kept=kept)
    caption_scores, caption_values = _attention_again(config, kept=config.remat == "matmuls")

    among, across = 2 * n * n // row.clips * width, 2 * n * length // row.clips * width
    yield _Matmul("attention", among, again=scores)
    yield _Matmul("attention", among, again=values)
    yield _Matmul("cross_attention", across, again=caption_scores)
    yield _Matmul("cross_attention", across, again=caption_values)
    for _ in range(6):  # query, key, value and out among tokens; query and out to the caption
        yield _Matmul("projections", 2 * n * width * width, again=by_weights)
    for _ in range(2):  # key and value of the caption
        keys_or_values = 2 * length * row.text_width * width
        yield _Matmul("projections", keys_or_values, gradients=1 + captions, again=by_weights)
    for _ in range(2):  # up and down
        yield _Matmul("mlp", 2 * n * width * config.hidden, again=by_weights)
    for _ in range(6):  # shift, scale and gate, of attention and MLP
        yield _Matmul("modulation", 2 * n * m * width, gradients=1, again=remat)


def _attention_again(config: DiTConfig, *, kept: bool) -> tuple[int, int]:
    """How often the backward pass computes attention's scores and values again.

    Kept outputs spare the values but not the scores, since the softmax between them is not kept.
    The fused kernels never keep it: their backward pass starts from scores in any case. Those for
    TPU run forward again only where outputs are not kept; cuDNN's also where they are, for the sums
    of its softmax, which have no name that a policy could keep.
    """
    fused = 0 if config.attention.kernel == "reference" else 1
    if config.remat == "none":
        return fused, 0
    if not kept or config.attention.kernel == "cudnn":
        return 1 + fused, 1
    return 1, 0


def vae_flops(config: AutoencoderConfig, frames: int, height: int, width: int) -> tuple[int, int]:
    """(encode, decode) of one clip of so many pixels, forward.

    Kernels reach into the zeros around a picture and before a clip. A convolution by matmul
    multiplies these too, and they count; a direct one passes over them, as XLA counts it. Raises
    ConfigError for a size that the autoencoder cannot code.
    """
    folds = not (
        (frames - 1) % config.temporal or height % config.spatial or width % config.spatial
    )
    if not folds or min(frames, height, width) < 1:
        raise ConfigError(
            f"{frames} frames of {height}x{width} pixels do not fold: the autoencoder takes "
            f"1 + {config.temporal}k frames and sides that {config.spatial} divides"
        )
    if isinstance(config, WanVAEConfig):
        return wan_flops(config, (frames, height, width))
    inside, inputs, cells = 0, 3, 0
    for outputs, (fold, side) in zip(config.widths, config.folds, strict=True):
        frames, height, width = (frames - 1) // fold + 1, height // side, width // side
        cells = frames * height * width
        inside += 2 * cells * (fold * side**2 * inputs) * outputs
        taps = sum(_block_taps(config, frames, height, width))
        inside += config.blocks * 2 * taps * outputs**2
        inputs = outputs
    # The decoder has the encoder's sizes in reverse. Only the way to latents and back differs:
    # a mean and a log-variance go out, and one latent comes in.
    latents = 2 * cells * inputs * config.channels
    return inside + 2 * latents, inside + latents


def vae_train_flops(config: AutoencoderConfig, frames: int, height: int, width: int) -> int:
    """Of one clip of so many pixels in a training step of the autoencoder, forward and backward.

    Every operand needs a gradient but the pixels, which the first fold multiplies. What is computed
    again is `vae_again_flops`. Not counted: networks that judge it, and zeros that direct
    convolutions multiply only on the way back. Raises ConfigError as `vae_flops`.
    """
    encode, decode = vae_flops(config, frames, height, width)
    if isinstance(config, WanVAEConfig):
        return 3 * (encode + decode) - wan_pixel_flops(config, (frames, height, width))
    fold, side = config.folds[0]
    cells = ((frames - 1) // fold + 1) * (height // side) * (width // side)
    of_pixels = 2 * cells * fold * side**2 * 3 * config.widths[0]
    return 3 * (encode + decode) - of_pixels


def vae_again_flops(config: AutoencoderConfig, frames: int, height: int, width: int) -> int:
    """What the backward pass of one clip computes again with `recompute`: of every block the first
    convolution, whose output the second one's gradient needs; what comes of that nothing does."""
    if not config.recompute:
        return 0
    if isinstance(config, WanVAEConfig):
        return wan_again_flops(config, (frames, height, width))
    again = 0
    for outputs, (fold, side) in zip(config.widths, config.folds, strict=True):
        frames, height, width = (frames - 1) // fold + 1, height // side, width // side
        first, _ = _block_taps(config, frames, height, width)
        again += 2 * config.blocks * 2 * first * outputs**2  # in the encoder and in the decoder
    return again


def vae_chunk_flops(
    config: AutoencoderConfig, latent_frames: int, height: int, width: int, *, first: bool
) -> tuple[int, int]:
    """(encode, decode) of a chunk of a clip, forward: of so many latent frames of pictures of so
    many pixels, the clip's first or with others before it. Raises ConfigError as `vae_flops`."""

    def until(frames: int) -> tuple[int, int]:
        return vae_flops(config, 1 + config.temporal * (frames - 1), height, width)

    if first:
        return until(latent_frames)
    before = 3  # from here on every kernel is over frames
    pairs = zip(until(before + latent_frames), until(before), strict=True)
    encode, decode = (more - less for more, less in pairs)
    return encode, decode


def _block_taps(config: VAEConfig, frames: int, height: int, width: int) -> tuple[int, int]:
    """Pairs of a cell and a cell under its kernel that are multiplied, in each convolution of a
    residual block: one kernel spans three frames, the present and those before, and one a frame."""
    if config.convolution == "matmul":
        return 3 * frames * 9 * height * width, frames * 9 * height * width
    pairs_of_frames = sum(min(3, frame) for frame in range(1, frames + 1))
    places = (3 * height - 2) * (3 * width - 2)
    return pairs_of_frames * places, frames * places


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Numbers that are learned. `embedding`: those between the network and what comes from outside,
    which have an axis named `vocabulary` or `features` (words, patches, places), and so do not grow
    with the square of the width."""

    total: int
    embedding: int

    @property
    def without_embedding(self) -> int:
        return self.total - self.embedding


def count_parameters(model: Any) -> ParameterCount:
    """Of a module, or of its shapes alone: `jax.eval_shape(lambda: Model(..., nnx.Rngs(0)))`."""
    total = embedding = 0
    for leaf in jax.tree.leaves(model, is_leaf=lambda leaf: isinstance(leaf, nnx.Param)):
        if isinstance(leaf, nnx.Param):
            size = math.prod(leaf.get_value().shape)
            total += size
            if {"vocabulary", "features"} & set(leaf.get_metadata()["axes"]):
                embedding += size
    return ParameterCount(total, embedding)
