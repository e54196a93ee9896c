"""Weights of LPIPS: of the package, of own files in each layout, and of anything else.

The distances are of the package `stlpips-pytorch` 0.0.2 itself, on PyTorch 2.13:

    stlpips.LPIPS(net="vgg", variant="shift_tolerant").double()(first, second)
"""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from sora_jax.errors import UserError
from sora_jax.eval.codecs import jpeg
from sora_jax.eval.perceptual import clip_distances
from sora_jax.eval.reconstruction import levels_of, psnr
from sora_jax.models.lpips import LPIPS, weight_shapes
from sora_jax.weights.lpips import load_lpips, read_lpips
from tests.eval.test_efficientnet import torch_file
from tests.tiny_lpips import pictures

published = pytest.mark.skipif(
    importlib.util.find_spec("stlpips_pytorch") is None,
    reason="needs the weights of the extra fvd",
)
DISTANCES = {
    (32, 32): (0.37932794, 0.06507040, 0.34276359),
    (37, 50): (0.36205657, 0.00738847, 0.41552611),
    (18, 23): (0.18981542, 0.09181208, 0.35863890),
}


@published
def test_the_package_gives_its_own_distances() -> None:
    found = load_lpips()
    assert (found.name, found.model.pooling) == ("st-lpips-vgg", "blurred")
    for size, expected in DISTANCES.items():
        distances = jax.jit(lambda x, y: found.model(x, y))(*pictures(*size))
        np.testing.assert_allclose(distances, expected, atol=1e-6)


PLACES = {  # of convolutions in lists of layers
    "max": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "blurred": (0, 2, 6, 8, 12, 14, 16, 20, 22, 24, 28, 30, 32),
}
STAGES = (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Kernels small enough that features stay finite."""
    random = np.random.default_rng(0)
    return {n: 0.03 * random.random(s, np.float32) for n, s in weight_shapes().items()}


def tensors(arrays: dict[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """The arrays as a file of PyTorch names and lays them: "max" and "blurred" as the packages
    `lpips` and `stlpips-pytorch`, "features" as torchvision."""
    found: dict[str, np.ndarray] = {}
    kernels = [name.removesuffix("/kernel") for name in arrays if name.endswith("/kernel")]
    places = PLACES["blurred" if layout == "blurred" else "max"]
    for name, stage, place in zip(kernels, STAGES, places, strict=True):
        prefix = f"features.{place}" if layout == "features" else f"net.slice{stage}.{place}"
        found[f"{prefix}.weight"] = arrays[f"{name}/kernel"].transpose(3, 2, 0, 1)
        found[f"{prefix}.bias"] = arrays[f"{name}/bias"]
    return found


def heads(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        f"lin{stage - 1}.model.1.weight": arrays[f"head{stage}"].reshape(1, -1, 1, 1)
        for stage in range(1, 6)
    }


@pytest.mark.parametrize("layout", ["max", "blurred", "features"])
def test_trunk_and_heads_are_read_from_one_file_or_two(
    layout: str, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    trunk, of_heads = tensors(arrays, layout), heads(arrays)
    if layout == "features":
        classifier = {"classifier.0.bias": np.zeros(10, np.float32)}
        torch_file(tmp_path / "trunk.pth", trunk | classifier)
        torch_file(tmp_path / "heads.pth", of_heads)
        path = tmp_path
    else:
        besides = {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32)}
        again = {f"lins.{name[3:]}": array for name, array in of_heads.items()}
        path = torch_file(tmp_path / "one.pth", trunk | of_heads | besides | again)
    found = read_lpips(path)
    family = "st-lpips-vgg" if layout == "blurred" else "lpips-vgg"
    assert found.name == f"{family}-{found.sha256[:12]}"
    assert found.model.pooling == ("blurred" if layout == "blurred" else "max")
    expected = LPIPS(arrays, found.model.pooling)
    pairs = zip(jax.tree.leaves(found.model), jax.tree.leaves(expected), strict=True)
    assert all(np.array_equal(read, own) for read, own in pairs)


def test_anything_else_is_one_sentence(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    whole = tensors(arrays, "max") | heads(arrays)
    name = "net.slice5.28.bias"
    wrong = {
        f"{name} is missing": {n: array for n, array in whole.items() if n != name},
        rf"{name} is \(3,\), for \(512,\)": whole | {name: np.zeros(3, np.float32)},
        "net.slice6.0.bias is .*, for nothing": whole | {"net.slice6.0.bias": whole[name]},
        f"{name} has numbers that are not finite": whole | {name: whole[name] * np.nan},
        "lin0.model.1.weight is missing": tensors(arrays, "max"),
    }
    for number, (sentence, content) in enumerate(wrong.items()):
        with pytest.raises(UserError, match=sentence):
            read_lpips(torch_file(tmp_path / f"{number}.pt", content))
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="text is no file of tensors of PyTorch"):
        read_lpips(tmp_path / "text")
    with pytest.raises(UserError, match=r"has no files \*.pth"):
        read_lpips(tmp_path)
    with pytest.raises(UserError, match="cannot read weights of LPIPS of VGG16 from .*: No such"):
        read_lpips(tmp_path / "none")


def test_without_weights_there_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="no weights of LPIPS of VGG16, and random ones"):
        load_lpips()


@published
def test_it_sees_otherwise_than_psnr() -> None:
    """On a photograph: a shift by a pixel, which PSNR takes for the worst, is the nearest."""
    from skimage import data, filters

    photograph = data.astronaut()[50:242, 120:312]
    blurred = filters.gaussian(photograph, 1.5, channel_axis=-1, preserve_range=True)
    made = {
        "shift": np.roll(photograph, 1, axis=1)[None],
        "jpeg": jpeg(photograph[None], 8).video,
        "blur": levels_of(blurred)[None],
    }
    model, truths = load_lpips().model, [photograph[None]] * len(made)
    found = dict(zip(made, clip_distances(model, list(made.values()), truths), strict=True))
    assert found == pytest.approx({"shift": 0.012, "jpeg": 0.273, "blur": 0.402}, abs=2e-3)
    decibels = {name: psnr(clip, truths[0]) for name, clip in made.items()}
    assert decibels == pytest.approx({"shift": 22.7, "jpeg": 25.6, "blur": 25.9}, abs=0.1)
