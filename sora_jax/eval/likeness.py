"""How alike a clip and its small preview come out: PSNR and SSIM at the preview's size."""

import numpy as np

from sora_jax.data.transforms import fit
from sora_jax.eval.reconstruction import Video, psnr, ssim


def likeness(preview: Video, video: Video) -> dict[str, float]:
    """`psnr` in dB and `ssim` of a clip, brought down by the mean of areas, beside a preview of as
    many frames."""
    small = np.stack([fit(frame, (preview.shape[1], preview.shape[2])) for frame in video])
    return {"psnr": psnr(small, preview), "ssim": ssim(small, preview)}
