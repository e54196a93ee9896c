"""The record of a set of latents: what the autoencoder makes of a clip, in place of its pixels."""

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np

from sora_jax.data.captions import BFLOAT16
from sora_jax.data.schema import Described, described, describing_features, parse_example


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentRecord(Described):
    """One captioned clip after the autoencoder. Latents are not normalised."""

    mean: np.ndarray  # bfloat16 [t, h, w, c]
    log_variance: np.ndarray  # as `mean`
    text: np.ndarray | None = None  # embeddings of the caption, bfloat16 [l, d], if the set has any

    @classmethod
    def parse(cls, serialized: bytes) -> "LatentRecord":
        """Reads one stored example; nothing of its arrays is copied.

        Raises:
            ValueError: the bytes are not a record of this schema.
        """
        return parse_example(serialized, cls._of)

    @classmethod
    def _of(cls, feature: Any) -> "LatentRecord":
        return cls(
            mean=_array(feature, "mean"),
            log_variance=_array(feature, "log_variance"),
            text=_array(feature, "text") if "text/value" in feature else None,
            **described(feature),
        )


def _array(feature: Any, name: str) -> np.ndarray:
    values = np.frombuffer(feature[f"{name}/value"].bytes_list.value[0], BFLOAT16)
    return values.reshape(feature[f"{name}/shape"].int64_list.value)


def posterior_mean(record: LatentRecord) -> np.ndarray:
    """What is trained on: bfloat16 [t, h, w, c]."""
    return record.mean


def latent_features(with_text: bool) -> Any:
    """TFDS features of a record; none of them needs TensorFlow."""
    from tensorflow_datasets import features as f

    def array(axes: int) -> Any:
        return f.Tensor(shape=(None,) * axes, dtype=ml_dtypes.bfloat16, encoding="bytes")

    text = {"text": array(2)} if with_text else {}
    return f.FeaturesDict(
        {**describing_features(), "mean": array(4), "log_variance": array(4), **text}
    )
