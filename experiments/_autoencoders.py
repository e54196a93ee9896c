"""The sizes of autoencoders: how far each brings footage down, and how wide it is for that.

Files of this folder compose what is here. Compression is told as frames x pixels x pixels a cell.
"""

from sora_jax.models.vae import VAEConfig

AUTOENCODERS = {
    # Trains on 2 CPU cores.
    "small": VAEConfig(
        channels=48,
        widths=(48, 144),
        folds=((1, 4), (2, 2)),
        blocks=1,
    ),
    "4x8x8": VAEConfig(
        channels=16,
        widths=(128, 256, 512),
        folds=((1, 2), (2, 2), (2, 2)),
        compute="bfloat16",
        recompute=True,
    ),
    # Pixels come in patches of 2 x 2; what folds bring together also goes by as means.
    "4x16x16": VAEConfig(
        channels=48,
        widths=(160, 320, 640, 640),
        folds=((1, 2), (1, 2), (2, 2), (2, 2)),
        shortcuts=True,
        compute="bfloat16",
        recompute=True,
    ),
    # An experiment: a token of a transformer is then a latent cell.
    "8x32x32": VAEConfig(
        channels=128,
        widths=(128, 256, 512, 1024, 1024),
        folds=((1, 2), (1, 2), (2, 2), (2, 2), (2, 2)),
        shortcuts=True,
        compute="bfloat16",
        recompute=True,
    ),
}
