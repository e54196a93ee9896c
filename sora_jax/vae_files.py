"""Video files into latents and back: any duration in the same memory, and a job that was stopped
goes on where it was.

A directory of latents holds 000000.npy and on, float32 [s g v c] that follow each other in time,
normalised by the statistics of the run, and latents.json, written last, which says of what they
are. Until then there are job.json and state.npz too, of sample/progress.py.
"""

import dataclasses
import hashlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from sora_jax.data.footage import rate_of
from sora_jax.data.video_chunks import VideoChunks
from sora_jax.encoded import vae_id
from sora_jax.errors import UserError
from sora_jax.files import write_file, write_json, writing
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.vae import VAE, State
from sora_jax.processes import is_first, to_host, wait_for_all
from sora_jax.sample.mp4 import join_segments, write_segment
from sora_jax.sample.progress import JOB, Progress, read_json
from sora_jax.sample.stream import decode_chunk, encode_chunk, filled, whole
from sora_jax.sharding.mesh import picture_mesh
from sora_jax.sharding.rules import clips_sharding

LABEL = "latents.json"
PART_FRAMES = 64  # latent frames; what a job that is stopped does again, at most


@dataclasses.dataclass(frozen=True)
class Coder:
    """An autoencoder, and how it codes: `chunk` latent frames at once, over `mesh`; `part` latent
    frames stand in one file, at least."""

    vae: VAE
    statistics: LatentStatistics
    mesh: Mesh
    chunk: int
    part: int = PART_FRAMES

    @property
    def chunks_per_part(self) -> int:
        return -(-self.part // self.chunk)


@dataclasses.dataclass(frozen=True)
class LatentsFile:
    """What latents.json says. Sizes are of the video, in pixels; latents are of its pictures with
    edges repeated to whole cells, and of its last frame repeated to whole latent frames."""

    source: str
    sha256: str
    vae_id: str
    frames: int
    height: int
    width: int
    fps: float
    parts: int


def encode_file(source: Path, output: Path, coder: Coder) -> LatentsFile:
    """Writes the latents of a video into the directory `output`, and prints what it does.

    Every process calls it, and sees the same files.

    Raises:
        MediaError: the video cannot be read, is damaged, or changes its size.
        UserError: `output` holds something else, or cannot be written.
    """
    config, per_part = coder.vae.config, coder.chunks_per_part
    video = VideoChunks(source, config.spatial)
    own, digest = vae_id(coder.vae, coder.mesh), _sha256(source)
    done = read_json(output / LABEL) or {}
    if done.get("sha256") == digest and done.get("vae_id") == own:
        _say(f"{output}: is there already")
        return read_label(output)
    job = {"sha256": digest, "vae_id": own, "chunk": coder.chunk, "part": per_part}
    progress = Progress(output, job)
    for change in video.changes:
        _say(f"{source}: {change}")
    _say_resumed(progress, output)
    shape = (video.height + video.missing[0], video.width + video.missing[1])
    encode, state = _Encoding(coder, shape), None
    numbered = enumerate(video.chunks(config.temporal * coder.chunk))
    for part, chunks in itertools.groupby(numbered, lambda pair: pair[0] // per_part):
        if part < progress.parts:
            continue
        if part and state is None:
            state = progress.resumed(encode.begin)
        made = []
        for _, pixels in chunks:
            latents, state = encode(pixels, state)
            made.append(latents)
        if is_first():
            file = io.BytesIO()
            np.save(file, np.concatenate(made))
            write_file(progress.part(part, ".npy"), file.getvalue())
        progress.keep(state)
        coded = min(video.frames, 1 + config.temporal * coder.chunk * ((part + 1) * per_part - 1))
        _say(f"{output}: {coded} frames")
    label = LatentsFile(
        source=source.name,
        sha256=digest,
        vae_id=own,
        frames=video.frames,
        height=video.height,
        width=video.width,
        fps=_rate(source, video, config.temporal),
        parts=progress.parts,
    )
    if is_first():
        write_json(output / LABEL, dataclasses.asdict(label))
    progress.forget_state()
    wait_for_all(f"encoded {output}")
    return label


def _rate(source: Path, video: VideoChunks, temporal: int) -> float:
    """Frames per second of a video that was read, after what is to be said at its end."""
    over = -(video.frames - 1) % temporal
    if over:
        _say(
            f"{source}: {video.frames} frames are not 1 + {temporal}k, so the last is repeated to "
            f"fill up {video.frames + over}, and cut again when it is decoded"
        )
    fps, varies = rate_of(source, video.times)
    if varies:
        _say(f"{source}: its rate varies, and is taken as {fps:g} fps, the mean")
    return fps


class _Encoding:
    """The encoder's programs for one size of picture: chunks of a video in, latents out."""

    def __init__(self, coder: Coder, shape: tuple[int, int]) -> None:
        config = coder.vae.config
        self._temporal, self._step = config.temporal, config.temporal * coder.chunk
        self._shape = shape
        cells = (shape[0] // config.spatial, shape[1] // config.spatial)
        self._mesh = picture_mesh(coder.mesh, 1, *cells)
        self._networks = whole(coder.vae, coder.statistics, self._mesh)

    def __call__(
        self, pixels: UInt8[np.ndarray, "1 t h w 3"], state: State
    ) -> tuple[Float[np.ndarray, "s g v c"], State]:
        kept = -(-pixels.shape[1] // self._temporal)
        pixels = filled(pixels, 1 if state is None else self._step)
        with jax.set_mesh(self._mesh):
            placed = jax.device_put(pixels, clips_sharding(self._mesh))
            latents, state = encode_chunk(*self._networks, placed, state)
        return to_host(latents)[0, :kept], state

    def begin(self) -> State:
        """A state of a clip that has begun."""
        return self(np.zeros((1, 1, *self._shape, 3), np.uint8), None)[1]


def decode_file(latents: Path, output: Path, coder: Coder) -> LatentsFile:
    """Writes the video of a directory of latents as an MP4, and prints what it does.

    Every process calls it, and sees the same files. Until all is decoded there are segments of it
    in a folder beside `output`.

    Raises:
        UserError: the latents are not whole, or of another autoencoder, or `output` cannot be
            written.
    """
    label, per_part = read_label(latents), coder.chunks_per_part
    own = vae_id(coder.vae, coder.mesh)
    if label.vae_id != own:
        raise UserError(
            f"{latents} holds latents of autoencoder {label.vae_id}, and this run's is {own}: "
            "decode them with the run that encoded them"
        )
    height, width = label.height + label.height % 2, label.width + label.width % 2
    if (height, width) != (label.height, label.width):
        _say(
            f"{output}: H.264 has even sides, so {label.height}x{label.width} (height x width) has "
            f"its edge repeated to {height}x{width}"
        )
    job = {"sha256": label.sha256, "vae_id": own, "chunk": coder.chunk, "part": per_part}
    progress = Progress(output.with_name(f"{output.name}.parts"), job)
    _say_resumed(progress, output)
    decode, state = _Decoding(coder, label), None
    numbered = enumerate(_latent_chunks(latents, label.parts, coder.chunk))
    for part, chunks in itertools.groupby(numbered, lambda pair: pair[0] // per_part):
        if part < progress.parts:
            continue
        if part and state is None:
            state = progress.resumed(lambda: decode.begin(latents))
        with write_segment(progress.part(part, ".mp4"), label.fps, height, width) as write:
            for number, chunk in chunks:
                video, state = decode(chunk, number, state)
                write(video)
        progress.keep(state)
        _say(f"{output}: {decode.before((part + 1) * per_part)} of {label.frames} frames")
    ends = [decode.before(part * per_part) for part in range(progress.parts + 1)]
    segments = [
        (progress.part(part, ".mp4"), end - begin)
        for part, (begin, end) in enumerate(itertools.pairwise(ends))
    ]
    if is_first():
        metadata = {"task": "decode", "latents": dataclasses.asdict(label)}
        with writing(output) as partial:
            join_segments(segments, partial, label.fps, metadata)
    progress.remove()
    wait_for_all(f"decoded {output}")
    return label


class _Decoding:
    """The decoder's programs for latents of a file: chunks of them in, frames out."""

    def __init__(self, coder: Coder, label: LatentsFile) -> None:
        config = coder.vae.config
        self._chunk, self._step = coder.chunk, config.temporal * coder.chunk
        self._label, self._coder = label, coder
        cells = (-(-label.height // config.spatial), -(-label.width // config.spatial))
        self._mesh = picture_mesh(coder.mesh, 1, *cells)
        self._networks = whole(coder.vae, coder.statistics, self._mesh)

    def before(self, number: int) -> int:
        """Frames before a chunk of this number."""
        return min(self._label.frames, 1 + self._step * (number - 1)) if number else 0

    def __call__(
        self, latents: Float[np.ndarray, "1 s g v c"], number: int, state: State
    ) -> tuple[UInt8[np.ndarray, "t h w 3"], State]:
        """Frames of chunk `number`, with even sides."""
        latents = filled(latents, self._chunk if number else 1)
        with jax.set_mesh(self._mesh):
            placed = jax.device_put(latents, clips_sharding(self._mesh))
            video, state = decode_chunk(*self._networks, placed, state)
        label = self._label
        kept = self.before(number + 1) - self.before(number)
        cut = to_host(video)[0, :kept, : label.height, : label.width]
        edges = ((0, 0), (0, label.height % 2), (0, label.width % 2), (0, 0))
        return np.pad(cut, edges, mode="edge"), state

    def begin(self, latents: Path) -> State:
        """A state of a clip that has begun."""
        return self(next(_latent_chunks(latents, 1, self._chunk)), 0, None)[1]


def read_label(latents: Path) -> LatentsFile:
    """What a directory of latents is of; raises UserError if it is none that is whole."""
    content = read_json(latents / LABEL)
    if content is None:
        begun = (latents / JOB).exists()
        raise UserError(
            f"{latents} holds no latents of a video: it has no {LABEL}"
            + ", for `sora vae encode` was stopped there: give that command again" * begun
        )
    try:
        return LatentsFile(**content)
    except TypeError as error:
        raise UserError(f"{latents / LABEL} is not of `sora vae encode`: {error}") from error


def _latent_chunks(
    latents: Path, parts: int, chunk: int
) -> Iterator[Float[np.ndarray, "1 s g v c"]]:
    """The first latent frame, then `chunk` at a time; the last may be fewer. A part is in memory
    at once."""
    held: np.ndarray | None = None
    begun = False
    for part in range(parts):
        path = latents / f"{part:06d}.npy"
        try:
            read = np.load(path)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"cannot read {path}: {error}; encode the video again") from error
        held = read if held is None else np.concatenate([held, read])
        while len(held) >= (chunk if begun else 1):
            length = chunk if begun else 1
            yield held[None, :length]
            held, begun = held[length:], True
    if held is not None and len(held):
        yield held[None]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _say(line: str) -> None:
    if is_first():
        print(line, flush=True)


def _say_resumed(progress: Progress, output: Path) -> None:
    if progress.parts:
        _say(f"{output}: goes on after part {progress.parts}")
