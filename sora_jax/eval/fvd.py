"""How far made clips are from real ones as a distribution, by the features of a backbone.

With I3D the Fréchet distance is the Fréchet video distance (arXiv:1812.01717). It is a number of
little meaning by itself: biased, the more so the fewer clips there are, and by I3D more about
texture than about motion. So it comes with what it tends to, with what no difference comes to, and
with what two known faults of real clips come to.
"""

from collections.abc import Sequence

from sora_jax.data.schema import DataError
from sora_jax.eval.backbone import Backbone
from sora_jax.eval.distribution import (
    extrapolated,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from sora_jax.eval.features import ClipFeatures, Video, clip_features
from sora_jax.eval.real_statistics import LEAST_CLIPS, Kept, RealStatistics, real_statistics


def score_distribution(
    real_clips: Sequence[Video],
    made_clips: Sequence[Video],
    backbone: Backbone,
    kept: Kept | None = None,
) -> dict[str, float]:
    """Distances of made from real clips, uint8 [t, h, w, 3] of equal frames, by METRIC/BACKBONE.

    frechet, and frechet_infinity, its limit for infinitely many clips, with the standard error
    frechet_infinity_error. Beside them, between halves of the real clips, of half_clips each:
    frechet_null_mean, frechet_null_sd and frechet_null_max of random halves; and frechet_grain and
    frechet_shuffled of a half to the other half with grain, or with shuffled frames.
    kernel with kernel_sd, precision, recall; real_clips and made_clips, how many there are.

    All processes call it with the same clips, of which each reads its share, and get the same.
    `kept`: where statistics of the real clips are kept between runs.

    Raises:
        DataError: there are too few clips, or such that the backbone does not describe; what is
            kept is of other clips, or was made in another way.
    """
    if len(made_clips) < LEAST_CLIPS:
        raise DataError(
            f"a distribution of {len(made_clips)} made clips: give {LEAST_CLIPS} or more"
        )
    real = real_statistics(real_clips, backbone, len(made_clips[0]), kept)
    return distances(real, clip_features(backbone, made_clips), backbone.name)


def distances(real: RealStatistics, made: ClipFeatures, backbone: str) -> dict[str, float]:
    """What `score_distribution` gives, of clips that are described already."""
    of_real = real.described
    limit, error = extrapolated(of_real.features, made.features)
    kernel, spread = kernel_distance(of_real.features, made.features)
    precision, recall = precision_recall(of_real.features, made.features)
    scores = {
        "frechet": frechet_distance(of_real.moments, made.moments),
        "frechet_infinity": limit,
        "frechet_infinity_error": error,
        **{f"frechet_{name}": distance for name, distance in real.distances.items()},
        "kernel": kernel,
        "kernel_sd": spread,
        "precision": precision,
        "recall": recall,
        "real_clips": len(of_real.features),
        "half_clips": len(of_real.features) // 2,
        "made_clips": len(made.features),
    }
    return {f"{name}/{backbone}": float(value) for name, value in scores.items()}
