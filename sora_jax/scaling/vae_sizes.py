"""What autoencoders cost: parameters, and FLOPs of a clip, side by side."""

from collections.abc import Mapping

import jax
from flax import nnx

from sora_jax.models.autoencoders import AutoencoderConfig, make_autoencoder
from sora_jax.page import Table
from sora_jax.scaling.flops import count_parameters, vae_flops

CLIP = (17, 256, 256)  # frames, height and width


def sizes_table(configs: Mapping[str, AutoencoderConfig]) -> Table:
    """A row for each autoencoder, by name. `times fewer` is how many numbers of pixels one of the
    latents stands for, after the first frame."""
    rows = []
    for name, config in configs.items():
        shapes = jax.eval_shape(lambda config=config: make_autoencoder(config, rngs=nnx.Rngs(0)))
        parameters = count_parameters(shapes).total
        encode, decode = vae_flops(config, *CLIP)
        fewer = 3 * config.temporal * config.spatial**2 / config.channels
        rows.append(
            (
                name,
                f"{config.temporal}x{config.spatial}x{config.spatial}",
                f"{config.channels}",
                f"{fewer:.0f}",
                f"{parameters / 1e6:.2f}",
                f"{encode / 1e9:,.0f}",
                f"{decode / 1e9:,.0f}",
            )
        )
    size = "x".join(map(str, CLIP))
    header = (
        "",
        "cell",
        "channels",
        "times fewer",
        "parameters, M",
        "encode, GFLOP",
        "decode, GFLOP",
    )
    return Table(f"Autoencoders, FLOPs of {size}", header, tuple(rows))
