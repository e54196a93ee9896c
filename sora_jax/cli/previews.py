"""What `sora sample` shows before clips are made, and while they are."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_jax.generator import Generator
from sora_jax.sample.generate import Preview
from sora_jax.sample.requests import Request, Sample, Video
from sora_jax.sample.sizes import smaller
from sora_jax.sample.video_io import write_samples, write_view

Each = Sequence[Mapping[str, Any]]  # what is known of each sample, as `write_samples` has it


def small_ones(
    generator: Generator,
    requests: Sequence[Request],
    factor: float,
    directory: Path,
    provenance: Mapping[str, Any],
    each: Each,
) -> list[Sample]:
    """Makes clips smaller by a factor, and writes them into the folder previews of a directory."""
    made = generator.sampler.generate([smaller(request, factor) for request in requests])
    paths = write_samples(made, directory / "previews", provenance, each)
    print(f"{len(paths)} previews: {paths[0]}{' ...' if len(paths) > 1 else ''}", flush=True)
    return made


def with_likeness(
    generator: Generator, small: Sequence[Sample], samples: Sequence[Sample], each: Each
) -> list[dict[str, Any]]:
    """What is known of each sample, with how alike it is to its preview; prints the means."""
    found = generator.likeness(small, samples)
    for measure, unit in (("psnr", " dB"), ("ssim", "")):
        alike = statistics.fmean(one[measure] for one in found)
        floor = statistics.fmean(one["unrelated"][measure] for one in found)
        print(f"{measure} to previews {alike:.3f}{unit}, to those of other seeds {floor:.3f}{unit}")
    return [
        dict(one)
        | {"preview": {"height": own.request.height, "width": own.request.width} | measured}
        for one, own, measured in zip(each, small, found, strict=True)
    ]


def views(
    directory: Path, requests: Sequence[Request], each: Each, every: int | None
) -> Preview | None:
    """What writes clips as they are predicted after every so many steps, if any."""

    def show(number: int, step: int, video: Video) -> None:
        write_view(directory, number, requests[number], each[number], step, video)

    return None if every is None else Preview(every, show)
