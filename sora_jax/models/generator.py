"""The trained model as one tree: text encoder, if there is one, and diffusion transformer."""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from sora_jax.models.dit import DiT, DiTConfig
from sora_jax.models.text import TextConfig, TextEncoder, encode_rows
from sora_jax.nn.attention import Memory
from sora_jax.nn.width_scaling import tell_base_shapes
from sora_jax.types import Layout, Text


class Generator(nnx.Module):
    """Velocity of tokens given their layout and the caption of each row."""

    def __init__(
        self,
        dit: DiTConfig,
        text: TextConfig,
        *,
        channels: int,
        vocabulary: int,
        rngs: nnx.Rngs,
    ):
        encodes = text.source == "encoder"
        self.text = TextEncoder(text, vocabulary, rngs=rngs) if encodes else None
        self.dit = DiT(dit, channels, text.width, rngs=rngs)
        if dit.base_width is not None:
            heads = dit.heads * dit.base_width // dit.width
            base = dataclasses.replace(dit, width=dit.base_width, heads=heads, base_width=None)
            make_base = lambda: DiT(base, channels, text.width, rngs=nnx.Rngs(0))  # noqa: E731
            tell_base_shapes(self.dit, jax.eval_shape(make_base))

    def encode_text(self, text: Int[Array, "b l"] | Text, clips: int = 1) -> Text:
        """Embeddings of token ids, of the captions of `clips` clips in each row, one after another;
        those that were made beforehand are as they are."""
        if self.text is None:
            assert isinstance(text, Text)
            return text
        assert not isinstance(text, Text)
        with jax.named_scope("text"):
            return encode_rows(self.text, text, clips)

    def __call__(
        self,
        tokens: Float[Array, "b n c"],
        layout: Layout,
        text: Text,
        memory: Memory | None = None,
    ) -> Float[Array, "b n c"]:
        return self.dit(tokens, layout, text, memory)
