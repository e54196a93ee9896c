"""From the size of a source to the size of a bucket: centre crop, then one area resize."""

import numpy as np
from jaxtyping import UInt8


def crop_box(height: int, width: int, target: tuple[int, int]) -> tuple[float, float, float, float]:
    """Largest centred box with the target's aspect ratio: (left, top, right, bottom) in pixels."""
    scale = min(height / target[0], width / target[1])
    box_height, box_width = target[0] * scale, target[1] * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def fit(image: UInt8[np.ndarray, "h w 3"], target: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Crops the overhang and averages the areas under the target's pixels."""
    from PIL import Image

    box = crop_box(image.shape[0], image.shape[1], target)
    resized = Image.fromarray(image).resize(target[::-1], Image.Resampling.BOX, box=box)
    return np.asarray(resized)


def fit_changes(height: int, width: int, target: tuple[int, int]) -> tuple[str, ...]:
    """What `fit` does to a picture of this size, in words for the ledger (height x width)."""
    left, top, right, bottom = crop_box(height, width, target)
    cropped = (round(bottom - top), round(right - left))
    changes = []
    if cropped != (height, width):
        changes.append(f"cropped {height}x{width} to {cropped[0]}x{cropped[1]}")
    if cropped != target:
        changes.append(f"resized to {target[0]}x{target[1]}")
    return tuple(changes)
