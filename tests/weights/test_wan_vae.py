"""Weights of the Wan 2.1 autoencoder in both layouts, and files that are none of its."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from sora_jax.errors import UserError
from sora_jax.models.wan_vae import WanVAEConfig
from sora_jax.weights import wan_vae
from sora_jax.weights.wan_vae import read_wan_vae
from tests import tiny_wan_vae as tiny

Arrays = dict[str, np.ndarray]
NAME = "decoder.up_blocks.1.upsamplers.0.time_conv.weight"


def test_the_published_layout_has_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_diffusers, _ = read_wan_vae(tiny.write_folder(tmp_path / "diffusers"))
    published = tmp_path / "published"
    published.mkdir()
    (published / "Wan2.1_VAE.pth").write_bytes(b"")
    # The file says no sizes, and means the published ones.
    small = WanVAEConfig(
        tiny.CHANNELS, tiny.WIDTH, tiny.MULTIPLIERS, tiny.HALVE_FRAMES, tiny.BLOCKS
    )
    monkeypatch.setattr(wan_vae, "WanVAEConfig", lambda **fields: small)
    monkeypatch.setattr(wan_vae, "MEAN", tiny.MEAN)
    monkeypatch.setattr(wan_vae, "DEVIATION", tiny.DEVIATION)
    arrays = tiny.as_published(tiny.weights())
    monkeypatch.setattr("sora_jax.weights.torch_files.read_tensors", lambda content: arrays)
    found, statistics = read_wan_vae(published)
    for one, other in zip(*map(jax.tree.leaves, (found, of_diffusers)), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(statistics.mean, tiny.MEAN)
    # As they stand in Wan's code, wan/modules/vae.py.
    assert "decoder.upsamples.5.time_conv.weight" in arrays
    assert "encoder.downsamples.2.residual.6.weight" in arrays
    assert "decoder.middle.1.to_qkv.weight" in arrays


def test_the_published_statistics_are_of_sixteen_channels() -> None:
    assert len(wan_vae.MEAN) == len(wan_vae.DEVIATION) == WanVAEConfig().channels
    assert (wan_vae.MEAN[0], wan_vae.MEAN[-1]) == (-0.7571, -0.2921)
    assert (wan_vae.DEVIATION[0], wan_vae.DEVIATION[-1]) == (2.8184, 1.9160)


def without(arrays: Arrays) -> None:
    del arrays[NAME]


def reshaped(arrays: Arrays) -> None:
    arrays[NAME] = arrays[NAME][:-1]


def one_more(arrays: Arrays) -> None:
    arrays["decoder.up_blocks.9.bias"] = np.zeros(3, np.float32)


def not_finite(arrays: Arrays) -> None:
    arrays[NAME] = arrays[NAME].copy()
    arrays[NAME][0, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without, f"is of another model: {NAME} is missing"),
        (reshaped, rf"is of another model: {NAME} is \(\d+, \d+, 3, 1, 1\), for"),
        (one_more, "for nothing of this name"),
        (not_finite, f"{NAME} has numbers that are not finite"),
    ],
)
def test_other_weights_are_refused(
    tmp_path: Path, change: Callable[[Arrays], None], reason: str
) -> None:
    arrays = tiny.weights()
    change(arrays)
    with pytest.raises(UserError, match=reason):
        read_wan_vae(tiny.write_folder(tmp_path, arrays))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"_class_name": "AutoencoderKL"}, "_class_name is 'AutoencoderKL', and should be"),
        ({"is_residual": True}, "is_residual is True, and should be False, as in Wan 2.1"),
        ({"base_dim": "wide"}, "base_dim is 'wide', as in no autoencoder"),
        ({"dim_mult": 4}, "dim_mult is 4, as in no autoencoder"),
        ({"temperal_downsample": [True]}, "4 levels but 1 times halve_frames"),
        ({"latents_std": [1.0]}, "should be 3 numbers"),
        ({"latents_std": [1.0, 0.0, 1.0]}, "should be 3 numbers"),
        ({"latents_mean": ["a", "b", "c"]}, "should be 3 numbers"),
    ],
)
def test_other_configs_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    folder = tiny.write_folder(tmp_path)
    (folder / "config.json").write_text(json.dumps({**tiny.CONFIG, **changes}))
    with pytest.raises(UserError, match=re.escape(reason)):
        read_wan_vae(folder)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has neither config.json"):
        read_wan_vae(tmp_path)
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is no file of tensors of PyTorch"):
        read_wan_vae(tmp_path)
    folder = tiny.write_folder(tmp_path / "cut")
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match="is no file of safetensors"):
        read_wan_vae(folder)
    weights.unlink()
    with pytest.raises(UserError):
        read_wan_vae(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="is no config of an autoencoder"):
        read_wan_vae(folder)
