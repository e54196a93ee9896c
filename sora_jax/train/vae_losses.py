"""The autoencoder's objective: reconstruction, perceptual and adversarial terms, and KL."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from sora_jax.config import ConfigError
from sora_jax.diffusion.path import token_noise
from sora_jax.models.discriminator import DiscriminatorConfig
from sora_jax.models.judged_vae import JudgedVAE, PerceptualDistance, autoencoder_of
from sora_jax.models.vae import to_unit
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.step import LossFunction, Metrics, Moment
from sora_jax.types import VideoBatch

Video = Float[Array, "b t h w 3"]
LARGEST_WEIGHT = 1e4  # of the adversarial term, where its gradient vanishes


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """A discriminator, and how the autoencoder heeds it: with `weight` times the norm of the other
    terms' gradient over that of this one, both at the last kernel (arXiv:2012.09841, equation 7),
    and not at all in the first `warmup_steps`, in which the discriminator catches up.

    `r1`: weight of half the squared gradient of its scores at real clips (arXiv:1801.04406), a mean
    over its patches, so that it weighs the same for clips of any size.
    """

    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    weight: float = 0.5
    warmup_steps: int = 1_000
    r1: float = 0.0
    optimizer: OptimizerConfig = OptimizerConfig(beta1=0.5, weight_decay=0.0)

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.warmup_steps < 0 or self.r1 < 0:
            raise ConfigError(
                f"adversarial: weight={self.weight} must be positive, warmup_steps="
                f"{self.warmup_steps} and r1={self.r1} not negative"
            )


@dataclasses.dataclass(frozen=True)
class VAELossConfig:
    """Weights. Reconstruction is `squared` x squared + `absolute` x absolute error a pixel; KL is a
    latent number's, so that the weights keep their meaning when the compression changes.

    `perceptual`: weight of the distance of `perceptual_frames` frames of each clip, drawn anew
    every step, or of all where it is none; by the network in the file `perceptual_weights`, or else
    in the package that ships one.
    """

    squared: float = 1.0
    absolute: float = 0.1
    kl: float = 1e-4
    perceptual: float = 0.0
    perceptual_frames: int | None = None
    perceptual_weights: str = ""
    adversarial: AdversarialConfig | None = None

    def __post_init__(self) -> None:
        if min(self.squared, self.absolute, self.kl, self.perceptual) < 0:
            raise ConfigError("vae_stage.loss: weights must not be negative")
        if self.perceptual_frames is not None and self.perceptual_frames < 1:
            raise ConfigError("vae_stage.loss.perceptual_frames must be positive, or none for all")

    @property
    def is_judged(self) -> bool:
        """Whether other networks take part: the model is then a JudgedVAE."""
        return self.perceptual > 0 or self.adversarial is not None


def vae_loss(config: VAELossConfig) -> LossFunction:
    """Loss function of the autoencoder, or of a JudgedVAE, for `train_step`.

    Where there is a discriminator, its loss is part of the sum, and each network's gradient is of
    its own terms alone.
    """

    def loss(
        model: Any, batch: VideoBatch, moment: Moment, rows: int
    ) -> tuple[Float[Array, ""], Metrics]:
        judged = isinstance(model, JudgedVAE)
        vae = autoencoder_of(model)
        perceptual: Any = jax.lax.stop_gradient(model.perceptual) if judged else None
        for_noise, for_frames = jax.random.split(moment.key) if judged else (moment.key, None)
        target = to_unit(batch.video)
        mean, log_variance = vae.encode(target)
        noise = token_noise(for_noise, batch.example_id, mean[0].size, 1).reshape(mean.shape)
        latents = mean + jnp.exp(log_variance / 2) * noise
        kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)

        def distance(x: Array, y: Array) -> Array:
            return perceptual(x.astype(vae.config.compute), y.astype(vae.config.compute))

        def reconstruction_loss(video: Video) -> tuple[Float[Array, ""], Metrics]:
            how = None if perceptual is None else distance
            return _reconstruction_loss(config, video, target, how, for_frames)

        features = vae.features(latents)
        video = vae.pixels(features)
        if config.adversarial is None:
            total, metrics = reconstruction_loss(video)
        else:
            value, slope, metrics = _weighed(
                config.adversarial, model, jax.lax.stop_gradient((features, video)), moment,
                reconstruction_loss,
            )  # fmt: skip
            judgement, own = _discriminator_loss(config.adversarial, model, target, video)
            # `slope` is all that the autoencoder needs of what judges it.
            total = judgement + _with_slope(value, slope, video)
            metrics |= own
        return total + config.kl * kl, jax.lax.stop_gradient({**metrics, "kl": kl})

    return loss


def _reconstruction_loss(
    config: VAELossConfig,
    video: Video,
    target: Video,
    perceptual: PerceptualDistance | None,
    key: Any,
) -> tuple[Float[Array, ""], Metrics]:
    """All terms that need no discriminator; also what they come to."""
    error = video - target
    squared = jnp.mean(jnp.square(error))
    total = config.squared * squared + config.absolute * jnp.mean(jnp.abs(error))
    metrics = {"psnr_db": 10.0 * jnp.log10(4.0 / squared)}
    if perceptual is not None:
        frames = video.shape[1]
        count = min(config.perceptual_frames or frames, frames)
        # The same of all rows, so that none depends on where it lies.
        chosen = jax.random.permutation(key, frames)[:count]
        pairs = [rearrange(x[:, chosen], "b t h w c -> (b t) h w c") for x in (video, target)]
        distance = jnp.mean(perceptual(*pairs))
        total += config.perceptual * distance
        metrics["perceptual"] = distance
    return total, metrics


def _weighed(
    config: AdversarialConfig,
    model: JudgedVAE,
    fixed: tuple[Array, Video],
    moment: Moment,
    reconstruction_loss: Any,
) -> tuple[Float[Array, ""], Video, Metrics]:
    """Value of the terms of a reconstruction, and their slope there, the adversarial one weighed by
    the norms of both at the last kernel. `fixed`: features before the last map, and the video."""
    features, video = fixed
    vae, discriminator = jax.lax.stop_gradient((model.vae, model.discriminator))

    def adversarial_loss(video: Video) -> Float[Array, ""]:
        return -jnp.mean(_scores(discriminator, vae, video))

    (value, metrics), slope = jax.value_and_grad(reconstruction_loss, has_aux=True)(video)
    fooling, fooling_slope = jax.value_and_grad(adversarial_loss)(video)
    _, pull = jax.vjp(lambda vae: vae.pixels(features), vae)
    norm, fooling_norm = (
        jnp.linalg.norm(pull(each)[0].last_kernel()) for each in (slope, fooling_slope)
    )
    weight = config.weight * jnp.minimum(norm / (fooling_norm + 1e-6), LARGEST_WEIGHT)
    weight = jnp.where(jnp.asarray(moment.step) < config.warmup_steps, 0.0, weight)
    metrics |= {"adversarial": fooling, "adversarial_weight": weight}
    return value + weight * fooling, slope + weight * fooling_slope, metrics


def _discriminator_loss(
    config: AdversarialConfig, model: JudgedVAE, real: Video, reconstruction: Video
) -> tuple[Float[Array, ""], Metrics]:
    """Hinge loss (arXiv:1705.02894), with R1 where it has a weight."""
    discriminator = model.discriminator
    of_real = _scores(discriminator, model.vae, real)
    of_fake = _scores(discriminator, model.vae, jax.lax.stop_gradient(reconstruction))
    hinges = (jnp.mean(jax.nn.relu(1.0 - of_real)), jnp.mean(jax.nn.relu(1.0 + of_fake)))
    total = 0.5 * sum(hinges, jnp.zeros(()))
    metrics = {
        "discriminator": total,
        "discriminator/real": jnp.mean(of_real),
        "discriminator/reconstructed": jnp.mean(of_fake),
    }
    if config.r1:
        slope = jax.grad(lambda video: jnp.sum(_mean_scores(discriminator, model.vae, video)))(real)
        patches = of_real[0].size
        penalty = patches * jnp.mean(jnp.sum(jnp.square(slope), (1, 2, 3, 4)))
        total += 0.5 * config.r1 * penalty
        metrics["discriminator/r1"] = penalty
    return total, metrics


def _scores(discriminator: Any, vae: Any, video: Video) -> Float[Array, "b s g v"]:
    scores: Array = discriminator(video.astype(vae.config.compute))
    return scores


def _mean_scores(discriminator: Any, vae: Any, video: Video) -> Float[Array, " b"]:
    return jnp.mean(_scores(discriminator, vae, video), (1, 2, 3))


def _with_slope(value: Float[Array, ""], slope: Video, at: Video) -> Float[Array, ""]:
    """A number that is `value`, and whose gradient with respect to `at` is `slope`."""
    linear = jnp.sum(at * jax.lax.stop_gradient(slope))
    return jax.lax.stop_gradient(value - linear) + linear
