"""Likeness of a clip and its preview: all of it, some, and none."""

import numpy as np

from sora_jax.eval.likeness import likeness


def test_a_clip_is_most_like_the_mean_of_its_own_areas() -> None:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (3, 16, 24, 3), np.uint8)
    video = small.repeat(2, 1).repeat(2, 2)
    same, other = likeness(small, video), likeness(random.permutation(small, 1), video)
    assert same["psnr"] > 58
    assert same["ssim"] > 0.999
    noisy = np.clip(video + random.normal(0, 8, video.shape), 0, 255).astype(np.uint8)
    near = likeness(small, noisy)
    # Noise of deviation 8 is 4 in the mean of four pixels.
    assert 34 < near["psnr"] < 38
    assert other["psnr"] < 12
    assert abs(other["ssim"]) < 0.1 < 0.9 < near["ssim"]
