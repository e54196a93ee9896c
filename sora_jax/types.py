"""The containers that travel between packages, and the glossary of axis letters.

Axis letters used in every signature:
    b rows of a batch      t frames (pixels or latents)   h w height and width
    c channels             n tokens of a row              d model width
    l text tokens          m noise levels of a row        k head width
    s clips of a row       j clips appended to one

Segment ids number the clips that share a row from 1; 0 is padding, which nothing attends to.
"""

import dataclasses

import jax
from jaxtyping import Array, Float, Int, UInt8


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a batch was drawn from: a bucket's name, and the positions in its endless stream."""

    bucket: str
    positions: range


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VideoBatch:
    """Clips of one bucket, as the loader emits them. An image is a video of one frame."""

    video: UInt8[Array, "b t h w 3"]
    text: Int[Array, "b l"]  # token ids, 0 is padding
    fps: Float[Array, " b"]  # frames per second
    example_id: Int[Array, " b"]  # position in the stream of the bucket: what noise is keyed by


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Appended:
    """Tokens of clips that are given beside other clips, each encoded by itself."""

    latents: Float[Array, "b n c"]  # normalised latent patches
    coordinates: Float[Array, "b n 3"]  # as of `Layout`, in the time of the clip they are beside
    frames: Int[Array, "b n"]  # latent frame, in the clip that is appended
    number: Int[Array, "b n"]  # of that clip, from 1; 0 where it is left out


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EncodedBatch:
    """Clips of one bucket after the autoencoder: as many tokens as they have, nothing padded."""

    latents: Float[Array, "b n c"]  # normalised latent patches
    text: "Int[Array, 'b l'] | Text"  # token ids, or embeddings that were made beforehand
    fps: Float[Array, " b"]
    example_id: Int[Array, " b"]
    appended: Appended | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layout:
    """What each token of a row is: where and when it stands, whose it is, how noisy it is.

    A token holds an index into the row's short table of noise levels, so that modulation is
    computed once per level and never once per token.
    """

    coordinates: Float[Array, "b n 3"]  # seconds, y and x in patches from the centre
    segments: Int[Array, "b n"]
    level_index: Int[Array, "b n"]  # into noise_levels
    noise_levels: Float[Array, "b m"]  # 0 is data ("given"), 1 is pure noise
    level_segments: Int[Array, "b m"]  # the segment each noise level belongs to
    given_segments: Int[Array, "b n"] | None = None  # of given tokens, 0 at others: seen apart


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Text:
    """Encoded captions; several captions may share a row, told apart by segment ids."""

    embeddings: Float[Array, "b l d"]
    segments: Int[Array, "b l"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Places:
    """Where the tokens of rows stand, and whose they are: what patterns of conditioning speak of.

    A row has places for s clips, filled from the first; its clips follow each other, each followed
    by what is appended to it."""

    coordinates: Float[Array, "b n 3"]  # seconds, y and x in patches from the centre
    segments: Int[Array, "b n"]
    frames: Int[Array, "b n"]  # latent frame of each token
    appended: Int[Array, "b n"]  # which of the clips appended to its clip it is of; 0: of that


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LatentBatch(Places):
    """Encoded clips with all that their tokens say: the batch that the diffusion step trains on,
    padded to a shape class, so that the compiled step depends on the class alone."""

    latents: Float[Array, "b n c"]  # normalised latent patches, 0 at padding
    text: Int[Array, "b l"] | Text  # ids or embeddings of the captions, l / s tokens each
    example_id: Int[Array, "b s"]
