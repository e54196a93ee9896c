"""Autoencoders: a small one of real footage for 2 CPU cores, and the sizes that pods train.

Run: python -m benchmarks.footage --output sets/footage
     sora train --experiment vae --data sets/footage/train --workdir runs/vae --stage vae
     sora train --experiment vae:judged --data sets/footage/varied --workdir runs/judged \
          --stage vae --start runs/vae
     sora vae score --run runs/vae --data sets/footage/held_out
vae:unjudged goes on as long as vae:judged without a perceptual and an adversarial loss, to be
compared: three films are learned by heart, so both see varied crops. vae:world is trained against a
discriminator from its first step.
Sizes: `sora vae sizes vae vae:f4x8x8 vae:f4x16x16 vae:f8x32x32`.
"""

import dataclasses

from experiments import demo
from experiments._autoencoders import AUTOENCODERS
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.experiment import DiTStage, Experiment, VAEStage
from sora_jax.models.discriminator import DiscriminatorConfig
from sora_jax.models.dit import DiTConfig
from sora_jax.sharding.mesh import MeshConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig
from sora_jax.train.vae_losses import AdversarialConfig, VAELossConfig

STEPS, MORE_STEPS, WORLD_STEPS = 6_000, 2_000, 5_000
PIXELS = VAELossConfig(squared=0.0, absolute=1.0, kl=1e-4)


def experiment() -> Experiment:
    """L1 and KL alone, on crops of 64 x 64 and 48 x 80 pixels. Buckets that it is not trained on
    are held out, to see whether lengths that it never saw come out as well."""
    sizes = [(frames, 64, 64) for frames in (1, 5, 9, 17, 33)]
    sizes += [(frames, 48, 80) for frames in (1, 5, 17)]
    return Experiment(
        name="vae",
        data=DataConfig(
            buckets=tuple(Bucket(*size, weight=2.0 if size[0] > 9 else 1.0) for size in sizes),
            shape_classes=(ShapeClass(4, 2304),),
            fps=24.0,
            text_length=8,
            vocabulary_size=64,
        ),
        vae=AUTOENCODERS["small"],
        vae_stage=VAEStage(
            _training(STEPS, 2e-3),
            PIXELS,
            pixel_frames=34,
            buckets=("1x64x64", "1x48x80", "5x64x64", "17x64x64"),
        ),
        dit=DiTConfig(depth=2, width=64, heads=2, patch=1),
        dit_stage=DiTStage(TrainConfig(1_000)),
    )


def unjudged() -> Experiment:
    """Goes on from `experiment` by the same losses."""
    base = experiment()
    stage = dataclasses.replace(
        base.vae_stage, training=_training(MORE_STEPS, 5e-4), buckets=("5x64x64", "17x64x64")
    )
    return dataclasses.replace(base, name="vae_unjudged", vae_stage=stage)


def judged() -> Experiment:
    """Goes on from `experiment` with a perceptual and an adversarial loss besides."""
    adversarial = AdversarialConfig(
        DiscriminatorConfig(width=32),
        weight=0.02,
        warmup_steps=100,
        optimizer=OptimizerConfig(peak_rate=3e-4, warmup_steps=20, beta1=0.5, weight_decay=0.0),
    )
    base = unjudged()
    loss = dataclasses.replace(
        PIXELS, perceptual=60.0, perceptual_frames=2, adversarial=adversarial
    )
    stage = dataclasses.replace(base.vae_stage, loss=loss)
    return dataclasses.replace(base, name="vae_judged", vae_stage=stage)


def world() -> Experiment:
    """The demo's autoencoder against a discriminator, on the procedural world."""
    base = demo.experiment()
    adversarial = AdversarialConfig(
        DiscriminatorConfig(width=16, layers=2),
        weight=0.1,
        warmup_steps=200,
        optimizer=OptimizerConfig(peak_rate=3e-4, warmup_steps=50, beta1=0.5, weight_decay=0.0),
    )
    stage = VAEStage(
        _training(WORLD_STEPS, 1e-2),
        dataclasses.replace(PIXELS, adversarial=adversarial),
        pixel_frames=36,
        buckets=("5x32x32", "9x32x32"),
    )
    vae = dataclasses.replace(base.vae, convolution="direct")
    return dataclasses.replace(base, name="vae_world", vae=vae, vae_stage=stage)


def _training(steps: int, peak_rate: float) -> TrainConfig:
    """Muon, with a peak rate that falls to a twentieth."""
    optimizer = OptimizerConfig("muon", peak_rate, warmup_steps=50, final_rate=0.05)
    return TrainConfig(
        steps, optimizer, ema_decay=0.99, log_every=20, save_every=steps // 4, evaluate_every=steps
    )


def f4x8x8() -> Experiment:
    """4 frames of 8 x 8 pixels to a cell of 16 numbers."""
    return _on_a_pod("4x8x8")


def f4x16x16() -> Experiment:
    """4 frames of 16 x 16 pixels to a cell of 48 numbers."""
    return _on_a_pod("4x16x16")


def f8x32x32() -> Experiment:
    """8 frames of 32 x 32 pixels to a cell of 128 numbers: deep, and an experiment."""
    return _on_a_pod("8x32x32")


def _on_a_pod(size: str) -> Experiment:
    """Images, and videos of four lengths, of 256 x 256 pixels and as many in other shapes, over 64
    chips; L1, perceptual and, after a fifth of the steps, adversarial."""
    vae = AUTOENCODERS[size]
    lengths = (1, *(1 + vae.temporal * k for k in (2, 4, 8)))
    shapes = ((256, 256), (192, 320), (320, 192))
    buckets = tuple(Bucket(frames, *shape) for frames in lengths for shape in shapes)
    cells = 9 * 256 * 256 // vae.spatial**2
    steps = 200_000
    return Experiment(
        name=f"vae_{size}",
        data=DataConfig(buckets=buckets, shape_classes=(ShapeClass(64, cells),), fps=24.0),
        vae=vae,
        vae_stage=VAEStage(
            TrainConfig(
                steps,
                OptimizerConfig("adamw", 1e-4, warmup_steps=2_000, beta2=0.99, weight_decay=0.0),
                ema_decay=0.999,
            ),
            VAELossConfig(
                squared=0.0,
                absolute=1.0,
                kl=1e-6,
                perceptual=0.5,
                perceptual_frames=4,
                adversarial=AdversarialConfig(weight=0.05, warmup_steps=steps // 5),
            ),
            pixel_frames=64 * 33,
        ),
        dit=DiTConfig(depth=12, width=384, heads=3, patch=1, remat="attention"),
        dit_stage=DiTStage(TrainConfig(100_000)),
        mesh=MeshConfig(fsdp=64),
    )
