"""What a request gives in place, in pixels -> the pattern of the tokens that it means."""

import numpy as np

from sora_jax.diffusion.patterns import Pattern
from sora_jax.sample.requests import Request


def pattern_of(request: Request, prefix: int, cell: int) -> Pattern:
    """What is given in place of the one clip of a row, [1]; in NumPy. Tokens that the box cuts
    through are made. `prefix`: latent frames that stay; `cell`: pixels per side of a token."""
    box = np.array([-np.inf, np.inf] * 2, np.float32)
    if request.box is not None:
        centres = np.repeat([request.height, request.width], 2) / cell / 2
        top, bottom, left, right = np.array(request.box) / cell
        low, high = (np.ceil, np.floor) if request.is_outside else (np.floor, np.ceil)
        edges = np.array([low(top), high(bottom), low(left), high(right)])
        box = (edges - centres).astype(np.float32)
    counts = np.array([[prefix], [len(request.start_levels)]], np.int32)
    return Pattern(counts[0], box[None], np.array([request.is_outside]), counts[1])
