"""Buckets: checks that name the culprit, shape classes, and which size a picture gets."""

import dataclasses

import pytest

from sora_jax.data.buckets import (
    Bucket,
    DataConfig,
    ShapeClass,
    bucket_classes,
    check_buckets,
    nearest_size,
    split_lengths,
)
from sora_jax.errors import ConfigError

CONFIG = DataConfig(
    buckets=(Bucket(1, 32, 32), Bucket(9, 32, 32), Bucket(9, 48, 48)),
    shape_classes=(ShapeClass(8, 108), ShapeClass(96, 16), ShapeClass(32, 48)),
)


def tokens_of(bucket: Bucket) -> int:
    return (1 + (bucket.frames - 1) // 4) * (bucket.height // 8) * (bucket.width // 8)


def test_a_bucket_gets_the_smallest_class_that_holds_it() -> None:
    classes = bucket_classes(CONFIG, tokens_of)
    assert [(c.rows, c.tokens) for c in classes] == [(96, 16), (32, 48), (8, 108)]


def test_a_bucket_that_fits_no_class_is_named() -> None:
    config = dataclasses.replace(CONFIG, shape_classes=(ShapeClass(32, 48),))
    with pytest.raises(ConfigError, match=r"bucket 9x48x48 needs 108 tokens, more than any .*48\)"):
        bucket_classes(config, tokens_of)


@pytest.mark.parametrize(
    ("bucket", "sentence"),
    [
        (Bucket(8, 32, 32), r"bucket 8x32x32: 8 frames are not 1 \+ 4k"),
        (Bucket(9, 36, 32), r"bucket 9x36x32: 36 x 32 pixels are not multiples of 8"),
        (Bucket(1, 32, 36), r"bucket 1x32x36: 32 x 36 pixels are not multiples of 8"),
    ],
)
def test_a_bucket_that_the_models_do_not_divide_is_named(bucket: Bucket, sentence: str) -> None:
    check_buckets(CONFIG, temporal=4, spatial=8)
    with pytest.raises(ConfigError, match=sentence):
        check_buckets(dataclasses.replace(CONFIG, buckets=(bucket,)), temporal=4, spatial=8)


@pytest.mark.parametrize(
    "changes",
    [
        {"buckets": ()},
        {"buckets": (Bucket(1, 8, 8, 1.0), Bucket(1, 8, 8, 2.0))},
        {"shape_classes": ()},
        {"shape_classes": tuple(ShapeClass(1, n) for n in range(1, 10))},
        {"shape_classes": (ShapeClass(1, 8), ShapeClass(2, 8))},
        {"caption_dropout": 1.5},
        {"text_length": 0},
        {"fps": 0.0},
    ],
)
def test_a_config_that_cannot_be_used_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(CONFIG, **changes)
    with pytest.raises(ConfigError):
        Bucket(1, 8, 8, weight=0.0)


SIZES = [Bucket(1, h, w) for h, w in ((32, 32), (64, 64), (24, 40), (48, 80), (40, 24))]


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (64, 64, (64, 64)),  # itself
        (1000, 1000, (64, 64)),  # the largest of the nearest aspect
        (63, 63, (32, 32)),  # never upscaled
        (720, 1280, (48, 80)),  # aspect before area
        (1280, 720, (40, 24)),  # a larger square exists, but portrait is nearer
        (30, 60, (24, 40)),
        (20, 500, None),  # lower than every bucket
    ],
)
def test_a_picture_gets_the_largest_size_of_the_nearest_aspect(
    height: int, width: int, size: tuple[int, int] | None
) -> None:
    assert nearest_size(height, width, SIZES) == size


def test_a_shot_is_cut_into_the_longest_clips_first() -> None:
    assert split_lengths(47, [9, 17]) == [(17, 17), (17, 17), (9, 9)]
    assert split_lengths(8, [9, 17]) == []
    assert split_lengths(18, [9]) == [(9, 9), (9, 9)]
    assert split_lengths(47, [9, 17], spare=8) == [(17, 25), (17, 22)]
    assert split_lengths(100, [33], spare=32) == [(33, 65), (33, 35)]
    assert split_lengths(70, [33], spare=32) == [(33, 65)]
