"""Small sets of clips whose pixels tell which clip they are."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.sources import ClipSet

CONFIG = DataConfig(
    buckets=(Bucket(1, 8, 8, 2.0), Bucket(5, 8, 8), Bucket(5, 8, 16), Bucket(9, 16, 8, 0.5)),
    shape_classes=(ShapeClass(8, 4), ShapeClass(4, 12)),
    text_length=12,
    caption_dropout=0.25,
)
SIZES = (40, 21, 3, 9)  # clips of each bucket; one has fewer than a batch


def clip(bucket: Bucket, number: int, **changes: object) -> SourceClip:
    """Every pixel of clip `number` is `number`."""
    video = np.full((bucket.frames, bucket.height, bucket.width, 3), number % 256, np.uint8)
    name = f"{bucket.name}-{number}"
    fields = {"clip_id": name, "asset_id": name, "caption": f"clip number {number}"}
    fields |= {"video": video, "fps": 8.0}
    return SourceClip(**(fields | changes))


def clips(config: DataConfig = CONFIG, sizes: tuple[int, ...] = SIZES) -> Iterator[SourceClip]:
    for bucket, size in zip(config.buckets, sizes, strict=True):
        for number in range(size):
            yield clip(bucket, number)


@dataclasses.dataclass(frozen=True)
class Share:
    """Stands for the sharding of rows over the devices of some hosts, as one of them sees it."""

    host: int
    hosts: int

    def addressable_devices_indices_map(self, shape: tuple[int]) -> dict[int, tuple[slice]]:
        rows = shape[0] // self.hosts
        return {0: (slice(self.host * rows, (self.host + 1) * rows),)}


@pytest.fixture(scope="session")
def numbers() -> SimpleNamespace:
    """What the sets below are made of: config, sizes (clips of each bucket), clip() and clips()."""
    return SimpleNamespace(config=CONFIG, sizes=SIZES, clip=clip, clips=clips)


@pytest.fixture(scope="session")
def clip_set(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    """A set of CONFIG with SIZES clips; tests must not change it."""
    directory = tmp_path_factory.mktemp("sets") / "numbers"
    build_set(clips(), directory, CONFIG, records_per_shard=8)
    return ClipSet(directory)


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    """The directory of such a set, for one test to damage."""
    build_set(clips(), tmp_path / "set", CONFIG, records_per_shard=8)
    return tmp_path / "set"


@pytest.fixture
def shares() -> Callable[[int], list[Share]]:
    """Of a number of hosts: the sharding of rows over them, as each sees it."""
    return lambda hosts: [Share(host, hosts) for host in range(hosts)]


@pytest.fixture
def write_video() -> Callable[..., Path]:
    """Writes frames to a video file of the suffix's container, and a caption beside it."""

    def write(
        path: Path, video: np.ndarray, fps: int = 10, caption: str | None = "a clip", **how: object
    ) -> Path:
        import av

        codec, options = ("libvpx", {}) if path.suffix == ".webm" else ("libx264", {"crf": "4"})
        faststart = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
        with av.open(str(path), "w", options=faststart) as container:
            stream = container.add_stream(codec, rate=fps, options=options)
            stream.height, stream.width = video.shape[1:3]
            stream.pix_fmt = "yuv420p"
            if "rotation" in how:
                stream.set_display_rotation(how["rotation"])
            times = how.get("times", range(len(video)))
            for time, image in zip(times, video, strict=True):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = time
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if caption is not None:
            path.with_suffix(".txt").write_text(caption)
        return path

    return write
