"""How far apart two sets of features are: Fréchet and kernel distance, precision and recall.

Of which features says the caller: Fréchet distances of different backbones, clip lengths or
resizings are different metrics. The Fréchet distance of finite sets is biased, and more so the
smaller they are; `extrapolated` estimates what is left in the limit, and `null_distances` what two
halves of one set come to. None of the numbers means much without both.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from sora_jax.eval.moments import Moments

Features = Float[np.ndarray, "n d"]
KERNEL_SUBSETS, KERNEL_SUBSET = 100, 1_000
EXTRAPOLATED_SIZES = 8  # at which the distance is taken, from a quarter of the set on
ROWS_AT_ONCE = 2_048  # of a table of distances between all pairs


def frechet_distance(one: Moments, other: Moments) -> float:
    """Between Gaussians of these moments (Dowson and Landau 1982; FID, arXiv:1706.08500, eq. 6):

        |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)

    by eigenvalues of symmetric matrices, so it is finite and real also where a covariance is
    singular, as of fewer rows than features. Covariances are unbiased (n - 1).
    """
    root = _square_root(one.covariance)
    product = root @ other.covariance @ root
    between = np.asarray(one.mean, np.float64) - np.asarray(other.mean, np.float64)
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(_symmetric(product)), 0, None)).sum()
    spread = np.trace(one.covariance) + np.trace(other.covariance)
    return float(between @ between + spread - 2 * shared)


def frechet_of_features(one: Features, other: Features) -> float:
    """`frechet_distance` of two sets, without a matrix of features x features where the sets are
    smaller: tr (S1^1/2 S2 S1^1/2)^1/2 is the sum of the singular values of A B^T, where A and B
    are the centred sets over sqrt(n - 1)."""
    a, b = _scaled(one), _scaled(other)
    between = one.mean(0, dtype=np.float64) - other.mean(0, dtype=np.float64)
    if max(len(a), len(b)) <= a.shape[1]:
        shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    else:  # the same trace from matrices of features x features
        root = _square_root(a.T @ a)
        shared = np.linalg.svd(b @ root, compute_uv=False).sum()
    return float(between @ between + (a**2).sum() + (b**2).sum() - 2 * shared)


def extrapolated(real: Features, generated: Features, seed: int = 0) -> tuple[float, float]:
    """The Fréchet distance of infinitely many rows, and the standard error of that estimate: the
    distances of random subsets of n rows of each are linear in 1/n (arXiv:1911.07023, 4)."""
    rng = np.random.default_rng(seed)
    rows = min(len(real), len(generated))
    sizes = np.linspace(rows // 4, rows, EXTRAPOLATED_SIZES).astype(int)
    distances = []
    for size in sizes:
        x, y = (each[rng.permutation(len(each))[:size]] for each in (real, generated))
        distances.append(frechet_of_features(x, y))
    terms = np.stack([1.0 / sizes, np.ones(len(sizes))], 1)
    (slope, limit), *_ = np.linalg.lstsq(terms, np.asarray(distances), rcond=None)
    errors = distances - terms @ [slope, limit]
    variance = errors @ errors / (len(sizes) - 2) * np.linalg.inv(terms.T @ terms)[1, 1]
    return float(limit), float(np.sqrt(variance))


def null_distances(features: Features, splits: int = 50, seed: int = 0) -> np.ndarray:
    """Fréchet distances between random halves of one set: what no difference at all comes to."""
    halves = _halves(len(features), splits, seed)
    return np.asarray([frechet_of_features(features[a], features[b]) for a, b in halves])


def kernel_distance(
    real: Features, generated: Features, seed: int = 0, subsets: int = KERNEL_SUBSETS
) -> tuple[float, float]:
    """KID (arXiv:1801.01401, 4): the unbiased squared MMD under the kernel (x y / d + 1)^3, as mean
    and standard deviation over random subsets of KERNEL_SUBSET rows, or half of fewer."""
    rng = np.random.default_rng(seed)
    size = min(KERNEL_SUBSET, len(real) // 2, len(generated) // 2)
    if size < 2:
        raise ValueError("a kernel distance of halves of fewer than four rows of features")
    values = []
    for _ in range(subsets):
        x = real[rng.permutation(len(real))[:size]].astype(np.float64)
        y = generated[rng.permutation(len(generated))[:size]].astype(np.float64)
        own = [_kernel(z, z) for z in (x, y)]
        within = sum(each.sum() - np.trace(each) for each in own) / (size * (size - 1))
        values.append(within - 2 * _kernel(x, y).mean())
    return float(np.mean(values)), float(np.std(values))


def precision_recall(
    real: Features, generated: Features, neighbours: int = 3
) -> tuple[float, float]:
    """Share of generated rows within the real manifold, and of real rows within the generated one
    (arXiv:1904.06991, eqs. 1 and 2): a row is within if it is no farther from some row of the other
    set than that row's k-th neighbour in its own."""
    return _share_within(generated, real, neighbours), _share_within(real, generated, neighbours)


def _share_within(rows: Features, manifold: Features, neighbours: int) -> float:
    # A row is its own nearest neighbour.
    of_own = (np.partition(part, neighbours, 1) for part in _pairs(manifold, manifold))
    radius = np.concatenate([part[:, neighbours] for part in of_own])
    within = [(part <= radius).any(1) for part in _pairs(rows, manifold)]
    return float(np.concatenate(within).mean())


def _pairs(rows: Features, others: Features) -> Iterator[np.ndarray]:
    """Squared distances of all rows to all others, some rows at a time."""
    rows, others = np.asarray(rows, np.float64), np.asarray(others, np.float64)
    squares = (others**2).sum(1)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        yield np.clip((part**2).sum(1)[:, None] + squares - 2 * part @ others.T, 0, None)


def _halves(count: int, splits: int, seed: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(count) for _ in range(splits)]
    return [(order[: count // 2], order[count // 2 :]) for order in orders]


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    linear = x @ y.T / x.shape[1] + 1
    return np.asarray(linear * linear * linear)  # a power takes several times as long


def _scaled(features: Features) -> np.ndarray:
    if len(features) < 2:
        raise ValueError(f"a distance from {len(features)} rows of features: give at least two")
    centred = np.asarray(features, np.float64)
    return np.asarray((centred - centred.mean(0)) / np.sqrt(len(centred) - 1))


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(_symmetric(matrix))
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return np.asarray((matrix + matrix.T) / 2)
