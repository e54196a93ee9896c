"""Small videos, lossless on disk, and an autoencoder to put them through."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import jax.numpy as jnp
import numpy as np

from sora_jax.models.latents import LatentStatistics
from sora_jax.models.vae import VAE, VAEConfig
from sora_jax.vae_files import Coder
from tests.tiny import one_device_mesh, randomised

CONFIG = VAEConfig(channels=4, widths=(8, 6), folds=((2, 2), (2, 2)), blocks=1)
STATISTICS = LatentStatistics(jnp.full(4, 0.1), jnp.full(4, 1.3))
NETWORK = randomised(lambda rngs: VAE(CONFIG, rngs=rngs), deviation=0.1)
CODER = Coder(NETWORK, STATISTICS, one_device_mesh(), chunk=2, part=3)  # a part has 2 chunks


def clip(frames: int, height: int = 16, width: int = 24) -> np.ndarray:
    """Blocks of colour that change smoothly, so that H.264 keeps them."""
    y, x, t = np.meshgrid(np.arange(height), np.arange(width), np.arange(frames), indexing="ij")
    waves = [np.sin(0.2 * y + 0.1 * t), np.cos(0.15 * x - 0.05 * t), np.sin(0.1 * (x + y))]
    return (np.stack(waves, -1) * 90 + 128).astype(np.uint8).transpose(2, 0, 1, 3)


def write(path: Path, pictures: np.ndarray, layout: str = "rgb24", kept: str = "bgr0") -> Path:
    """A lossless video of arrays of `layout`, which the file holds as `kept`; 12.5 fps."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("ffv1", rate=Fraction(25, 2))
        video.height, video.width = pictures.shape[1:3]
        video.pix_fmt = kept
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format=layout).reformat(format=kept)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def parts(directory: Path) -> list[np.ndarray]:
    return [np.load(path) for path in sorted(directory.glob("*.npy"))]
