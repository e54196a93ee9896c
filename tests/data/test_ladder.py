"""Few shapes of equal cost for many sizes of clip."""

import math

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket, DataConfig, bucket_classes, nearest_size
from sora_jax.data.ladder import (
    ASPECT_RATIOS,
    aligned,
    buckets_of,
    equal_classes,
    native_sizes,
    picture_sizes,
    square_sizes,
)
from sora_jax.data.transforms import crop_box
from sora_jax.errors import ConfigError
from sora_jax.models.dit import DiTConfig
from sora_jax.scaling.flops import Row, train_flops
from sora_jax.sharding.mesh import sharing_a_row

PICTURES, DURATIONS = (256, 512, 1024), (1, 4, 8, 16, 32)
DIT = DiTConfig(depth=28, width=1536, heads=12)


def cost(tokens: int) -> int:
    return train_flops(DIT, Row(tokens, channels=16, text_tokens=256, text_width=1024))


@pytest.mark.parametrize("tokens", [256, 400, 900, 1600, 3600, 8160])
def test_pictures_are_near_their_aspect_ratio_and_fill_their_row(tokens: int) -> None:
    sizes = picture_sizes(tokens)
    assert len(set(sizes)) == len(ASPECT_RATIOS)
    for (height, width), ratio in zip(sizes, ASPECT_RATIOS, strict=True):
        assert 0.96 * tokens <= height * width <= tokens
        assert abs(math.log(width / height / ratio)) < 0.15


@pytest.mark.parametrize(("tokens", "count", "most"), [(900, 37, 0.1), (1600, 51, 0.06)])
def test_native_sizes_lose_one_patch_of_any_picture_at_most(
    tokens: int, count: int, most: float
) -> None:
    cell = 16
    buckets = [Bucket(1, height * cell, width * cell) for height, width in native_sizes(tokens)]
    assert len(buckets) == count
    filled = [bucket.height * bucket.width / cell**2 / tokens for bucket in buckets]
    assert 1 - most <= min(filled) <= max(filled) <= 1
    lost = []
    for ratio in np.geomspace(min(ASPECT_RATIOS), max(ASPECT_RATIOS), 500):
        height, width = 20_000 / math.sqrt(ratio), 20_000 * math.sqrt(ratio)
        target = nearest_size(round(height), round(width), buckets)
        assert target is not None
        left, top, _, bottom = crop_box(round(height), round(width), target)
        scale = target[0] / (bottom - top)
        lost.append(max(2 * left * scale, 2 * top * scale) / cell)
    assert 0.8 < max(lost) <= 1.001
    common = [Bucket(1, h * cell, w * cell) for h, w in picture_sizes(tokens)]
    assert nearest_size(2000, 2500, common) != nearest_size(2000, 2500, buckets)
    with pytest.raises(ConfigError, match="pictures of 64 tokens have too few shapes"):
        native_sizes(64)


def test_square_sizes_are_square() -> None:
    assert square_sizes(900) == [(30, 30)]
    buckets = buckets_of([900], [1, 4], temporal=4, cell=16, sizes=square_sizes)
    assert [bucket.name for bucket in buckets] == ["1x480x480", "13x480x480"]
    assert [bucket.weight for bucket in buckets] == [1.0, 1.0]


def test_a_resolution_without_such_pictures_is_refused() -> None:
    with pytest.raises(ConfigError, match="no picture of 7 tokens"):
        picture_sizes(7)


@pytest.mark.parametrize(("length", "context"), [(75_600, 4), (256, 1), (900, 4), (522_240, 16)])
def test_rows_are_rounded_up_by_little(length: int, context: int) -> None:
    rounded = aligned(length, context)
    assert rounded % context == 0
    assert length <= rounded <= 1.015 * length
    assert length < 4096 * context or rounded % (128 * context) == 0


def test_nine_shapes_three_resolutions_and_five_durations_need_eight_programs() -> None:
    buckets = buckets_of(PICTURES, DURATIONS, temporal=4, cell=16)
    assert len(buckets) == len(ASPECT_RATIOS) * len(PICTURES) * len(DURATIONS)
    lengths = [tokens * frames for tokens in PICTURES for frames in DURATIONS]
    classes = equal_classes(lengths, ways=64, context=1, cost=cost)
    assert len(classes) == 8

    def tokens_of(bucket: object) -> int:
        return (bucket.height // 16) * (bucket.width // 16) * ((bucket.frames - 1) // 4 + 1)

    used = bucket_classes(DataConfig(buckets, classes), tokens_of)
    for shape_class in classes:
        waste = [
            1 - tokens_of(bucket) / shape_class.tokens
            for bucket, its in zip(buckets, used, strict=True)
            if its == shape_class
        ]
        assert sum(waste) / len(waste) <= 0.04
    spent = [each.rows * cost(each.tokens) for each in classes]
    assert max(spent) <= 1.3 * min(spent)
    assert all(each.rows % (64 * each.parts) == 0 for each in classes)


def test_a_row_is_shared_by_no_more_devices_than_it_needs() -> None:
    lengths = [900, 57_600, 75_600, 230_400]
    classes = equal_classes(lengths, ways=16, context=4, cost=cost)
    assert [each.context for each in classes] == [1, 1, 2, None]
    for each in classes:
        context = sharing_a_row(4, each.context)
        assert each.tokens % context == 0
        assert each.rows % (16 * 4 // context * each.parts) == 0


def test_no_part_of_a_class_holds_more_tokens_than_the_longest_row() -> None:
    lengths = [900, 3600, 18_900, 57_600, 75_600, 230_400]
    for ways, context in ((1, 1), (16, 4)):
        classes = equal_classes(lengths, ways=ways, context=context, cost=cost)
        assert classes[-1].rows == ways * classes[-1].parts
        assert classes[0].parts > 1
        held = classes[-1].tokens // context
        for each in classes:
            its_context = sharing_a_row(context, each.context)
            its_ways = ways * context // its_context
            of_a_part = each.rows // (its_ways * each.parts)
            assert of_a_part * each.tokens // its_context <= held
            fewest = math.ceil(each.rows // its_ways / (held * its_context // each.tokens))
            assert each.parts <= fewest + 3
