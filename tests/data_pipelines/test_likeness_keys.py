"""Keys beside ImageHash's pHash, which is the same thing one picture at a time."""

import imagehash
import numpy as np
from PIL import Image
from scipy import ndimage

from data_pipelines.likeness import SIDE, Signature, keys, phash


def pictures(count: int, side: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(count, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def test_hashes_are_those_of_imagehash() -> None:
    found = phash(pictures(5, 16).astype(np.float32))
    for mirrored in (False, True):
        for number, picture in enumerate(pictures(5, 16)):
            turned = picture[:, ::-1] if mirrored else picture
            expected = imagehash.phash(Image.fromarray(turned), hash_size=8, highfreq_factor=2)
            ours = found[number + 5 * mirrored].reshape(8, 8)
            assert (ours != expected.hash).sum() <= 2  # that are near the median


def test_copies_share_keys_and_strangers_do_not() -> None:
    clips = pictures(4, 40)
    inside = [clip[None, 4:36, 4:36] for clip in clips]
    cut = [
        np.asarray(Image.fromarray(clip[0]).resize((SIDE, SIDE), box=(1.6, 1.6, 30.4, 30.4)))
        for clip in inside
    ]
    found = [set(keys(Signature(np.ascontiguousarray(clip), 1.0))) for clip in inside]
    for number, (whole, cropped) in enumerate(zip(inside, cut, strict=True)):
        for copy in (whole[..., ::-1], cropped[None]):
            shared = set(keys(Signature(np.ascontiguousarray(copy), 1.0)))
            assert shared & found[number]
            assert not any(shared & other for i, other in enumerate(found) if i != number)
