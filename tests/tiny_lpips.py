"""An LPIPS of narrow layers and pictures for it, made by a fixed rule.

Needs neither JAX nor the package, so that other implementations can be given the same.
"""

import numpy as np

WIDTHS = (8, 12, 16, 20, 20)
CONVOLUTIONS = (2, 2, 3, 3, 3)
SIZES = ((32, 32), (37, 50), (18, 23))


def arrays() -> dict[str, np.ndarray]:
    """By name: kernels [3 3 i o], biases and heads [o]."""
    random = np.random.RandomState(0)
    made: dict[str, np.ndarray] = {}
    inputs = 3
    for stage, (width, count) in enumerate(zip(WIDTHS, CONVOLUTIONS, strict=True), 1):
        for number in range(1, count + 1):
            kernel = random.standard_normal((3, 3, inputs, width)) * (2 / (9 * inputs)) ** 0.5
            made[f"conv{stage}_{number}/kernel"] = kernel.astype(np.float32)
            made[f"conv{stage}_{number}/bias"] = random.uniform(-0.3, 0.3, width).astype(np.float32)
            inputs = width
        made[f"head{stage}"] = random.uniform(0, 1, width).astype(np.float32)
    return made


def pictures(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Three pictures in [-1, 1], [3 h w 3], and the same with noise, shifted, and turned round."""
    random = np.random.RandomState(height * width)
    y, x = np.mgrid[:height, :width] / 8
    waves = np.stack([np.sin(x + (n + 0.3) * y + np.arange(3)[:, None, None]) for n in range(3)])
    first = 0.8 * waves.transpose(0, 2, 3, 1)
    noisy = first[0] + 0.1 * random.standard_normal(first[0].shape)
    second = np.stack([noisy, np.roll(first[1], 1, 1), first[2, ::-1]])
    return first.astype(np.float32), np.clip(second, -1, 1).astype(np.float32)
