"""Batches of the loader -> batches on their devices, laid out as their shape class has them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sora_jax.data.buckets import Bucket, ShapeClass
from sora_jax.diffusion.patterns import draw_appended
from sora_jax.errors import ConfigError
from sora_jax.experiment import Experiment
from sora_jax.models.latents import (
    AppendedClip,
    LatentStatistics,
    appended_tokens,
    encode_batch,
    encode_tokens,
    lay_out,
)
from sora_jax.models.t5 import T5Encoder
from sora_jax.models.text import encode_rows
from sora_jax.models.vae import VAE
from sora_jax.sharding.mesh import mesh_for_rows
from sora_jax.sharding.rules import rows_sharding
from sora_jax.train.programs import Programs
from sora_jax.train.run import Prepared
from sora_jax.types import Appended, EncodedBatch, LatentBatch, Text, VideoBatch

Prepare = Callable[[tuple[int, Any]], Prepared]


def prepare_clips(experiment: Experiment, mesh: Mesh) -> Prepare:
    """Of clips, for the autoencoder: their pixels."""

    def prepare(item: tuple[int, VideoBatch]) -> Prepared:
        batch = to_devices(item[1], mesh)
        tokens = experiment.tokens(experiment.data.buckets[item[0]])
        return Prepared(batch, batch.video.shape[0] * tokens)

    return prepare


def prepare_latents(experiment: Experiment, mesh: Mesh) -> Prepare:
    """Of latents made beforehand: laid out on the host, so that no bucket needs a program.

    Raises:
        ConfigError: something is appended to clips, which is cut out of pixels.
    """
    for bucket in experiment.data.buckets:
        if bucket.appended:
            raise ConfigError(
                f"bucket {bucket.name}: what is appended to clips is cut out of their pixels: "
                "train on a set of clips without dit_stage.encode_once, or remove the bucket"
            )
    meshes = [mesh_for_rows(mesh, each.context) for each in experiment.classes()]

    def prepare(item: tuple[int, EncodedBatch]) -> Prepared:
        laid = _laid_out(experiment, item[0], item[1])
        return Prepared(to_devices(laid, meshes[item[0]]), _trained(experiment, item[0]))

    return prepare


def prepare_encoded(
    experiment: Experiment,
    buckets: Sequence[int],
    mesh: Mesh,
    vae: VAE,
    statistics: LatentStatistics,
) -> Prepare:
    """Of clips, for the transformer: encoded on the devices, by a program for each of `buckets`."""

    def encode(vae: VAE, batch: VideoBatch, bucket: int) -> LatentBatch:
        encoded = encode_batch(vae, statistics, batch, experiment.dit.patch)
        if experiment.data.buckets[bucket].appended:
            cut = cut_out(experiment, bucket, vae, statistics, batch)
            encoded = dataclasses.replace(encoded, appended=cut)
        return _laid_out(experiment, bucket, encoded)

    classes = experiment.classes()
    meshes = {bucket: mesh_for_rows(mesh, classes[bucket].context) for bucket in buckets}
    lowered = []
    for bucket, class_mesh in meshes.items():
        batch = abstract_clips(experiment, bucket, experiment.batch_clips()[bucket], class_mesh)
        jitted = jax.jit(encode, static_argnames="bucket", out_shardings=rows_sharding(class_mesh))
        with jax.set_mesh(class_mesh):
            lowered.append((batch, jitted.lower(vae, batch, bucket)))
    programs = Programs("the encoder", lowered)

    def prepare(item: tuple[int, VideoBatch]) -> Prepared:
        batch = to_devices(item[1], meshes[item[0]])
        laid = programs.of(batch)(vae, batch)
        return Prepared(laid, _trained(experiment, item[0]))

    return prepare


def cut_out(
    experiment: Experiment, bucket: int, vae: VAE, statistics: LatentStatistics, batch: VideoBatch
) -> Appended:
    """What is given beside the clips of a batch: others, cut out of these."""
    size, patch = experiment.data.buckets[bucket], experiment.dit.patch
    places = draw_appended(
        experiment.dit_stage.diffusion.conditioning,
        jax.random.key(experiment.seed),
        batch.example_id,
        size.frames,
        size.appended,
    )
    seconds = places.start / batch.fps[:, None] + places.delay
    clips = []
    for number, frames in enumerate(size.appended):
        cut = jax.vmap(functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=frames))
        tokens = encode_tokens(vae, statistics, cut(batch.video, places.start[:, number]), patch)
        grid = experiment.grid(Bucket(frames, size.height, size.width))
        clips.append(AppendedClip(tokens, grid, seconds[:, number], places.is_used[:, number]))
    return appended_tokens(clips, batch.fps, experiment.vae.temporal, tokens.shape[-1])


def prepare_embedded(
    prepare: Prepare,
    encoder: T5Encoder | None,
    experiment: Experiment,
    classes: Iterable[ShapeClass],
    mesh: Mesh,
) -> Prepare:
    """What `prepare` makes, with its captions embedded by a fixed encoder on the devices: by a
    program for each of `classes`. Without an encoder they stay as they are."""
    if encoder is None:
        return prepare

    def embed(encoder: T5Encoder, ids: jax.Array, clips: int) -> Text:
        text = encode_rows(encoder, ids, clips)
        return dataclasses.replace(text, embeddings=text.embeddings.astype(jnp.bfloat16))

    programs = {}
    for each in classes:
        sharding = rows_sharding(class_mesh := mesh_for_rows(mesh, each.context))
        shape = (each.rows, each.clips * experiment.data.text_length)
        ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding)
        jitted = jax.jit(embed, static_argnames="clips", out_shardings=sharding)
        with jax.set_mesh(class_mesh):
            lowered = jitted.lower(encoder, ids, each.clips)
        programs[each] = Programs("the text encoder", [(ids, lowered)])
    classes_of_buckets = experiment.classes()

    def prepare_and_embed(item: tuple[int, Any]) -> Prepared:
        made = prepare(item)
        ids = made.batch.text
        text = programs[classes_of_buckets[item[0]]].of(ids)(encoder, ids)
        return Prepared(dataclasses.replace(made.batch, text=text), made.tokens)

    return prepare_and_embed


def abstract_clips(experiment: Experiment, bucket: int, rows: int, mesh: Mesh) -> VideoBatch:
    """Shapes, dtypes and shardings of so many rows of clips of a bucket."""
    sharding, size = rows_sharding(mesh), experiment.data.buckets[bucket]

    def of(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    return VideoBatch(
        video=of(jnp.uint8, size.frames, size.height, size.width, 3),
        text=of(jnp.int32, experiment.data.text_length),
        fps=of(jnp.float32),
        example_id=of(jnp.int32),
    )


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """This process's rows of a batch as global arrays, rows split over the mesh."""
    sharding = rows_sharding(mesh)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array), batch
    )


def _laid_out(experiment: Experiment, bucket: int, batch: EncodedBatch) -> LatentBatch:
    grid, its_class = experiment.grid(experiment.data.buckets[bucket]), experiment.classes()[bucket]
    return lay_out(batch, grid, experiment.vae.temporal, its_class.tokens, its_class.clips)


def _trained(experiment: Experiment, bucket: int) -> int:
    """Tokens of a bucket's batch, over all processes and without padding."""
    return experiment.batch_clips()[bucket] * experiment.tokens(experiment.data.buckets[bucket])
