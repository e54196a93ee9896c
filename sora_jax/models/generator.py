"""The trained model as one tree: text encoder and diffusion transformer."""

from flax import nnx
from jaxtyping import Array, Float, Int

from sora_jax.models.dit import DiT, DiTConfig
from sora_jax.models.text import TextConfig, TextEncoder
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
        self.text = TextEncoder(text, vocabulary, rngs=rngs)
        self.dit = DiT(dit, channels, text.width, rngs=rngs)

    def encode_text(self, ids: Int[Array, "b l"]) -> Text:
        return self.text(ids)

    def __call__(
        self, tokens: Float[Array, "b n c"], layout: Layout, text: Text
    ) -> Float[Array, "b n c"]:
        return self.dit(tokens, layout, text)
