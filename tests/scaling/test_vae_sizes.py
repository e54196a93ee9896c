"""The table of autoencoders: a row each, with the counts of the functions that are tested alone."""

import jax
from flax import nnx

from sora_jax.models.vae import VAE, VAEConfig
from sora_jax.scaling.flops import vae_flops
from sora_jax.scaling.vae_sizes import CLIP, sizes_table


def test_a_row_has_what_it_costs() -> None:
    small = VAEConfig(channels=4, widths=(8, 16), folds=((1, 4), (4, 2)), blocks=1)
    table = sizes_table({"small": small, "usual": VAEConfig()})
    name, cell, channels, fewer, parameters, encode, decode = table.rows[0]
    assert (name, cell, channels) == ("small", "4x8x8", "4")
    assert fewer == f"{3 * 4 * 8 * 8 / 4:.0f}"
    weights = jax.tree.leaves(nnx.state(VAE(small, rngs=nnx.Rngs(0)), nnx.Param))
    assert parameters == f"{sum(each.size for each in weights) / 1e6:.2f}"
    flops = [round(each / 1e9) for each in vae_flops(small, *CLIP)]
    assert [encode, decode] == [f"{each:,}" for each in flops]
    assert table.rows[1][1:3] == ("4x8x8", "16")
    assert all(len(row) == len(table.header) for row in table.rows)
