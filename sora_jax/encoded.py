"""Latents made beforehand: of a whole set by an autoencoder, on disk or beside a transformer.

Much of the time of a step goes into encoding clips, which are the same clips every epoch. A set of
latents (`encode_set`) is made once for all runs on its autoencoder, by a job on any number of
hosts. A small set may instead be encoded at the start of a run (`encoded_set`): RUN/dit/latents
holds one array a bucket, an item a record in the order of the set, and made_by.json, written last,
which says of what they are.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding
from jaxtyping import Float

from sora_jax.checkpoints import named
from sora_jax.config import ConfigError, fingerprint
from sora_jax.data.bad_records import BadRecord
from sora_jax.data.buckets import Bucket
from sora_jax.data.captions import TextEmbedder
from sora_jax.data.encode import BucketWork, LatentSet
from sora_jax.data.mixture import Clips
from sora_jax.data.once import Once, Stripes
from sora_jax.data.pipeline import own_rows, read_ahead
from sora_jax.data.schema import DataError, Encoding, Manifest
from sora_jax.data.sources import ClipSet
from sora_jax.experiment import Experiment
from sora_jax.models.latents import LatentStatistics, encode_tokens, stored_moments
from sora_jax.models.t5 import T5Encoder
from sora_jax.models.vae import VAE
from sora_jax.sharding.mesh import mesh_for_rows
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.weights.text_encoders import EncodedCaptions, ImportedEncoder

LABEL = "made_by.json"
SHARD_BYTES = 2**28  # of latents; a job that is stopped makes so much again, for each of its rows
RECORDS_PER_SHARD = 4096


def encode_set(
    experiment: Experiment,
    clips: ClipSet,
    output: Path,
    mesh: Mesh,
    vae: VAE,
    embed: TextEmbedder | None = None,
) -> Manifest:
    """Writes the latents of the records of `clips`, in the order of the set, as a set of its own.
    Bad records are left out, and stand in its ledger.

    Every process calls it, and sees the same `output`. Batches have the rows of the shape classes;
    each filled bucket is a program. What is done when the job stops need not be done again, on as
    many processes or others.

    Raises:
        ConfigError: the mesh does not divide the rows of a class.
        DataError: too many records are bad, a shard cannot be read, the set has clips of a size
            that is no bucket, or `output` holds something else.
    """
    clips.require_pixels("encoding")
    sizes, filled = experiment.data.buckets, clips.filled_buckets(experiment.data)
    filled = tuple(bucket for bucket in filled if not sizes[bucket].appended)
    names = [sizes[bucket].name for bucket in filled]
    unknown = [name for name in clips.manifest.shards if name not in names]
    if unknown:
        raise DataError(
            f"{clips.directory} has clips of {', '.join(unknown)}, which is no bucket of "
            f"{experiment.name}: encode it with a run that has it"
        )
    encoding = Encoding(
        source_id=clips.manifest.id,
        vae_id=vae_id(vae, mesh),
        channels=experiment.vae.channels,
        text_id=embed.id if embed else None,
        text_width=embed.width if embed else None,
    )
    work = [_work(experiment, clips, bucket, mesh, vae) for bucket in filled]
    latents = LatentSet(clips, output, encoding, work)
    if not latents.is_finished:
        missing = latents.missing()
        # Also waits until all have looked, before anyone writes.
        digest = hashlib.sha256(repr(missing).encode()).digest()
        multihost_utils.assert_equal(
            np.frombuffer(digest, np.uint8), f"hosts do not see the same files in {output}"
        )
        latents.write(missing, jax.process_index(), embed)
        multihost_utils.sync_global_devices("latents written")
        latents.check()  # here, so that all processes stop where one would
        if jax.process_index() == 0:
            latents.finish(embed)
        multihost_utils.sync_global_devices("set of latents finished")
    return Manifest.load(output)


def _work(experiment: Experiment, clips: ClipSet, bucket: int, mesh: Mesh, vae: VAE) -> BucketWork:
    size, its_class = experiment.data.buckets[bucket], experiment.classes()[bucket]
    sharding = rows_sharding(mesh_for_rows(mesh, its_class.context))
    numbers = math.prod(latent_shape(experiment, size))
    length = min(max(SHARD_BYTES // (4 * numbers), 1), RECORDS_PER_SHARD)  # two of 2 bytes
    stripes = Stripes(size, clips.manifest.records(size.name), its_class.rows, length)
    reads, writes = own_rows(sharding, its_class.rows), _written_rows(sharding, its_class.rows)
    return BucketWork(stripes, reads, writes, _on_devices(stored_moments, (vae,), sharding))


def latent_shape(experiment: Experiment, bucket: Bucket) -> tuple[int, int, int, int]:
    """[t, h, w, c] of a bucket's clips after the autoencoder."""
    vae = experiment.vae
    frames = (bucket.frames - 1) // vae.temporal + 1
    return frames, bucket.height // vae.spatial, bucket.width // vae.spatial, vae.channels


def _written_rows(sharding: Sharding, rows: int) -> list[int]:
    """Rows of a batch that are for this process to write: of several that hold a row, the first."""
    holders: dict[int, int] = {}
    devices: Any = sharding.devices_indices_map((rows,))  # JAX leaves a device's type open
    for device, index in devices.items():
        for row in range(rows)[index[0]]:
            holders[row] = min(holders.get(row, device.process_index), device.process_index)
    return sorted(row for row, process in holders.items() if process == jax.process_index())


def _on_devices(
    encode: Callable[..., Any], models: tuple[Any, ...], sharding: Sharding
) -> Callable[[np.ndarray], Callable[[], Any]]:
    """Pixels of this process's rows -> what waits for what encode(*models, pixels) makes."""
    program = jax.jit(encode, out_shardings=sharding)

    def start(video: np.ndarray) -> Callable[[], Any]:
        made = program(*models, jax.make_array_from_process_local_data(sharding, video))
        return lambda: jax.tree.map(_rows_here, made)

    return start


def _rows_here(array: jax.Array) -> list[np.ndarray]:
    """This process's rows of an array whose rows alone are split, ascending."""
    found: dict[int, np.ndarray] = {}
    for shard in array.addressable_shards:
        first = shard.index[0].start or 0
        if first not in found:  # several devices may hold the same
            found |= dict(enumerate(np.asarray(shard.data), first))
    return [found[row] for row in sorted(found)]


def vae_id(vae: VAE, mesh: Mesh) -> str:
    """12 hex digits over an autoencoder's config and parameters: of all that decides its latents,
    but for the order of sums."""
    whole = jax.jit(lambda vae: vae, out_shardings=replicated(mesh))(vae)
    digest = hashlib.sha256(fingerprint(vae.config.trained()).encode())
    for name, array in sorted(named(whole).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()[:12]


def check_encoding(clips: Clips, vae: VAE, mesh: Mesh) -> None:
    """Raises DataError unless the set's latents are of this autoencoder."""
    encoding = clips.encoding
    if encoding is not None and encoding.vae_id != (own := vae_id(vae, mesh)):
        raise DataError(
            f"{clips.directory} holds latents of autoencoder {encoding.vae_id}, this run's is "
            f"{own}: encode the clips again with this run"
        )


def reads_embeddings(clips: Clips, experiment: Experiment) -> bool:
    """Whether the experiment reads embeddings of captions; then the set has them.

    Raises:
        DataError: it has none, or of another width.
        ConfigError: the experiment draws from captions that have none.
    """
    if experiment.text.source != "given":
        return False
    width = clips.empty_caption().shape[-1]
    if width != experiment.text.width:
        raise DataError(
            f"{clips.directory} holds embeddings of captions {width} wide, and text.width is "
            f"{experiment.text.width}: set that, or embed with the model that the experiment is for"
        )
    if experiment.data.caption_kinds:
        raise ConfigError(
            "text.source=given and data.caption_kinds: sets hold embeddings of the first captions "
            "alone, so leave one of them out"
        )
    return True


@dataclasses.dataclass(frozen=True)
class CaptionsRead:
    """What the batches of a run bring of captions: token ids for the encoder that is trained along;
    or the set's embeddings; or, with an `encoder`, token ids that are embedded in the step."""

    text_id: str | None = None  # of what makes embeddings, if they are read
    imported: ImportedEncoder | None = None
    encoder: T5Encoder | None = None

    @property
    def loaded(self) -> dict[str, Any]:
        """What `Steps` is told of it."""
        in_set = self.text_id is not None and self.imported is None
        return {"embedded": in_set, "reader": self.imported}

    @property
    def shown_by(self) -> EncodedCaptions | None:
        """What reads captions of previews, where they are embedded in the step."""
        if self.imported is None or self.encoder is None:
            return None
        return EncodedCaptions(self.imported, self.encoder)

    @property
    def meta(self) -> dict[str, str]:
        """What checkpoints keep of it."""
        return {} if self.text_id is None else {"text_id": self.text_id}


def captions_read(
    clips: Clips, experiment: Experiment, embed: TextEmbedder | None, mesh: Mesh
) -> CaptionsRead:
    """How a run reads captions: as the set has them; where it has no embeddings and the experiment
    reads some, by `embed`, an encoder that `sora import` made, split over the mesh.

    Raises:
        DataError: as `reads_embeddings`.
        ConfigError: `embed` is another than embedded the set, or of another width than text.width.
    """
    text_id = clips.encoding.text_id if clips.encoding else None
    if experiment.text.source == "given" and text_id is None and isinstance(embed, ImportedEncoder):
        if embed.width != experiment.text.width:
            raise ConfigError(
                f"{embed.directory} makes embeddings {embed.width} wide, and text.width is "
                f"{experiment.text.width}: set that"
            )
        return CaptionsRead(embed.id, embed, embed.restore(mesh))
    if not reads_embeddings(clips, experiment):
        return CaptionsRead()
    if embed is not None and embed.id != text_id:
        raise ConfigError(
            f"{clips.directory} holds embeddings of captions by {text_id}, and --embed gives "
            f"{embed.id}: give the same"
        )
    return CaptionsRead(text_id)


def encoded_set(
    experiment: Experiment,
    clips: Clips,
    directory: Path,
    mesh: Mesh,
    vae: VAE,
    statistics: LatentStatistics,
) -> dict[int, Float[np.ndarray, "records n c"]]:
    """Normalised latent patches of every filled bucket of `clips`, by index of the bucket.

    `directory` is the run's. Latents that another autoencoder, config or set left there are made
    anew.

    Raises:
        ConfigError: there are several processes, or the latents cannot be written.
        DataError: a clip cannot be read.
    """
    if jax.process_count() > 1:
        raise ConfigError(
            "dit_stage.encode_once keeps latents on one machine: set it to False, and train on "
            "what `sora encode` makes of the set"
        )
    kept = directory / "dit" / "latents"
    buckets = {i: experiment.data.buckets[i] for i in clips.filled_buckets(experiment.data)}
    made_by = {
        "experiment": fingerprint(experiment.trained()),
        "set": clips.id,
        "mean": np.asarray(statistics.mean).tolist(),  # another autoencoder has others
        "deviation": np.asarray(statistics.deviation).tolist(),
        "buckets": [bucket.name for bucket in buckets.values()],
    }
    if _label(kept) != made_by:
        try:
            kept.mkdir(parents=True, exist_ok=True)
            (kept / LABEL).unlink(missing_ok=True)
            for i, bucket in buckets.items():
                tokens = _encoded(experiment, clips, i, mesh, vae, statistics)
                np.save(kept / f"{bucket.name}.npy", tokens)
            partial = kept / f"{LABEL}.partial"
            partial.write_text(json.dumps(made_by))
            partial.replace(kept / LABEL)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"cannot keep latents in {kept}: {reason}") from error
    return {i: np.load(kept / f"{bucket.name}.npy") for i, bucket in buckets.items()}


def _label(kept: Path) -> Any:
    """What the latents there are of, or None if they are not whole."""
    return json.loads((kept / LABEL).read_text()) if (kept / LABEL).exists() else None


def _encoded(
    experiment: Experiment,
    clips: Clips,
    bucket: int,
    mesh: Mesh,
    vae: VAE,
    statistics: LatentStatistics,
) -> Float[np.ndarray, "records n c"]:
    """Latents of every record of a bucket, in batches of its shape class."""
    size, its_class = experiment.data.buckets[bucket], experiment.classes()[bucket]
    sharding = rows_sharding(mesh_for_rows(mesh, its_class.context))
    encode = functools.partial(encode_tokens, patch=experiment.dit.patch)
    start = _on_devices(encode, (vae, statistics), sharding)
    records = len(clips.source(size))
    stripes = Stripes(size, records, its_class.rows, records)
    rows: list[list[np.ndarray]] = [[] for _ in range(its_class.rows)]
    for batch in read_ahead(Once(clips, [(stripes, 0)], [range(its_class.rows)])):
        for row, (record, tokens) in enumerate(
            zip(batch.records, start(batch.video)(), strict=True)
        ):
            if isinstance(record, BadRecord):
                raise DataError(f"{record.error}; dit_stage.encode_once needs every record")
            if record is not None:
                rows[row].append(tokens)
    return np.stack([tokens for row in rows for tokens in row])
