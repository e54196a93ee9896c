"""Scores of a run's autoencoder on each bucket of a set: all measures, a page, and pictures.

`sora vae score` writes to its output directory

    metrics.json   every number as BUCKET/COLUMN/MEASURE (eval/vae_measures.py), and what it is of
    report.html    tables and playing clips, in one file
    pictures.png   frames of these clips, side by side
"""

from pathlib import Path

from sora_jax.data.buckets import Bucket
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError, UserError
from sora_jax.eval.backbone import i3d_backbone
from sora_jax.eval.evaluator import Exhibit
from sora_jax.eval.examples import set_examples
from sora_jax.eval.vae_measures import Describers, measure
from sora_jax.eval.vae_tables import page, pictures_png, tables_text
from sora_jax.files import write_file, write_json
from sora_jax.models.autoencoders import AutoencoderConfig
from sora_jax.networks import experiment_of, load_vae
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.weights.lpips import load_lpips

SHOWN = 3  # clips of a bucket, on the page


def score_autoencoder(
    run: Path,
    clips: ClipSet,
    output: Path,
    most_clips: int,
    lpips: str = "",
    i3d: str = "",
    fvd: bool = True,
) -> dict[str, float]:
    """Scores the averaged autoencoder of a run on up to so many clips of each bucket of a set, and
    writes what it finds. In one process, over all its devices.

    `fvd`: with the Fréchet video distance, which takes longest of all on CPU. `lpips`, `i3d`: files
    of weights, in place of those of the extra `fvd`. A measure whose weights
    are not there is left out, which is printed, unless its file was given.

    Raises:
        UserError: the run has no autoencoder, the set has no clips that it can code, or a file
            cannot be read or written.
    """
    experiment = experiment_of(run)
    vae, statistics, step = load_vae(experiment, run, make_mesh(MeshConfig()))
    buckets = codable_buckets(clips, experiment.vae)
    describers = _describers(lpips, i3d, fvd)
    by_bucket: dict[str, dict[str, float]] = {}
    exhibits: dict[str, list[Exhibit]] = {}
    for bucket in buckets:
        print(f"{bucket.name}: scoring", flush=True)
        examples = set_examples(clips, [bucket], most_clips)
        found = measure(vae, statistics, examples, describers, SHOWN)
        by_bucket[bucket.name], exhibits[bucket.name] = found.metrics, found.exhibits
    metrics = {f"{name}/{k}": v for name, each in by_bucket.items() for k, v in each.items()}
    scored_on = f"{clips.directory} ({clips.id[:12]})"
    of = {"run": str(run), "step": step, "params": "ema", "scored_on": scored_on}
    write_json(output / "metrics.json", {**of, **metrics})
    made_by = {
        "command": f"sora vae score --run {run} --data {clips.directory}",
        "autoencoder": f"{experiment.name}, step {step}, averaged",
        "scored on": scored_on,
    }
    write_file(output / "report.html", page(by_bucket, exhibits, made_by))
    rows = [exhibit for each in exhibits.values() for exhibit in each]
    write_file(output / "pictures.png", pictures_png(rows))
    print(tables_text(by_bucket))
    print(f"scores, page and pictures: {output}")
    return metrics


def codable_buckets(clips: ClipSet, config: AutoencoderConfig) -> list[Bucket]:
    """The buckets of a set that an autoencoder can code, from few frames to many; others are
    printed.

    Raises:
        UserError: the set has no pixels, or there are none.
    """
    clips.require_pixels("scoring")
    sizes = [tuple(map(int, name.split("x"))) for name in clips.manifest.shards]
    found = []
    for frames, height, width in sorted(sizes):
        bucket = Bucket(frames, height, width)
        uneven = (frames - 1) % config.temporal, height % config.spatial, width % config.spatial
        if any(uneven):
            print(f"{bucket.name}: left out, for it does not fold", flush=True)
        elif clips.manifest.records(bucket.name):
            found.append(bucket)
    if not found:
        raise ConfigError(
            f"{clips.directory} has no clips of 1 + {config.temporal}k frames with sides that "
            f"{config.spatial} divides, as the autoencoder codes them"
        )
    return found


def _describers(lpips: str, i3d: str, fvd: bool) -> Describers:
    try:
        named = load_lpips(lpips)
    except UserError as error:
        if lpips:
            raise
        print(f"without LPIPS: {error}", flush=True)
        named = None
    try:
        backbone = i3d_backbone(i3d) if fvd else None
    except UserError as error:
        if i3d:
            raise
        print(f"without the Fréchet video distance: {error}", flush=True)
        backbone = None
    if named is None:
        return Describers(backbone=backbone)
    return Describers(named.model, named.name, backbone)
