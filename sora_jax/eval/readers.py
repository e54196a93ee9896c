"""What is read off clips that were made from captions: facts told, VBench's dimensions, features.

The columns that bound the facts are ground_truth (true clips), ceiling_vae (true clips through the
autoencoder), floor_shuffled (the model's clips under other captions) and static (the model's first
frames, frozen). VBench's dimensions stand beside those of the frozen first frames as well.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sora_jax.eval.clip_scores import Score, of_values, prefixed
from sora_jax.eval.examples import Example
from sora_jax.eval.reconstruction import reconstruct
from sora_jax.eval.suite import Found, Video, examples_id
from sora_jax.eval.world_state import frozen, read, score, score_shuffled
from sora_jax.models.vae import VAE

if TYPE_CHECKING:
    from sora_jax.eval.backbone import Backbone
    from sora_jax.eval.clip_model import CLIP


@dataclasses.dataclass(frozen=True)
class Reader:
    """`read` is given places of examples and the clips made for them, and called by all processes;
    `further` makes metrics of what was read of all, in one."""

    read: Callable[[Sequence[int], Sequence[Video]], Found]
    further: Callable[[Found], Mapping[str, float]] = lambda found: {}
    settings: str = ""  # what it depends on beside the clips


def facts(vae: VAE, examples: Sequence[Example]) -> Reader:
    """Whether clips show what their captions say. All examples have one frame rate."""
    prompted, fps = [example.facts for example in examples], examples[0].fps

    def read_clips(places: Sequence[int], made: Sequence[Video]) -> Found:
        truths = [examples[place].video for place in places]
        own, scenes = [prompted[place] for place in places], read(made, fps)
        columns = {
            "": score(scenes, own),
            "ground_truth/": score(read(truths, fps), own),
            "ceiling_vae/": score(read(reconstruct(vae, truths), fps), own),
            "floor_shuffled/": score_shuffled(scenes, places, prompted),
        }
        if len(made[0]) > 1:
            columns["static/"] = score(read(map(frozen, made), fps), own)
        scores: dict[str, Score] = {}
        for column, found in columns.items():
            scores |= prefixed(column, found)
        return Found(scores)

    return Reader(read_clips)


def vbench(examples: Sequence[Example]) -> Reader:
    """VBench's dimensions that need no network, of videos."""
    from sora_jax.eval.vbench import dimensions  # whose OpenCV training can do without

    def read_clips(places: Sequence[int], made: Sequence[Video]) -> Found:
        rates = [examples[place].fps for place in places]
        columns = {"vbench/": list(made), "vbench/frozen/": [frozen(video) for video in made]}
        scores: dict[str, Score] = {}
        for column, videos in columns.items():
            found = [dimensions(*each) for each in zip(videos, rates, strict=True)]
            values = {name: of_values(each[name] for each in found) for name in found[0]}
            scores |= prefixed(column, values)
        return Found(scores)

    return Reader(read_clips)


def clip(model: "CLIP", examples: Sequence[Example]) -> Reader:
    """CLIPScore of clips with their prompts: of made ones, of true ones, and, where prompts differ,
    of made ones with the next other prompt: what a clip of something else gets."""
    from sora_jax.eval.clip_alignment import frame_features, prompt_features, scores

    prompts = [example.prompt for example in examples]

    def next_other(place: int) -> str:
        after = prompts[place + 1 :] + prompts[:place]
        return next(prompt for prompt in after if prompt != prompts[place])

    def read_clips(places: Sequence[int], made: Sequence[Video]) -> Found:
        frames = frame_features(model, made)
        truths = frame_features(model, [examples[place].video for place in places])
        own = prompt_features(model, [prompts[place] for place in places])
        columns = {"": scores(frames, own), "ground_truth/": scores(truths, own)}
        if len(set(prompts)) > 1:
            others = prompt_features(model, [next_other(place) for place in places])
            columns["floor_shuffled/"] = scores(frames, others)
        return Found(
            {f"clip_score/{each}{model.name}": of_values(found) for each, found in columns.items()}
        )

    return Reader(read_clips, settings=model.name)


def distribution(
    examples: Sequence[Example], backbones: Sequence["Backbone"], kept: Path
) -> Reader:
    """Distances of made clips from the true ones by the features of each backbone. What the true
    ones are is kept in the directory `kept`.

    Raises:
        DataError: the clips are too few, or of different or too few frames.
    """
    from sora_jax.eval.features import clip_features, of_rows
    from sora_jax.eval.fvd import distances
    from sora_jax.eval.real_statistics import Kept, real_statistics

    truths, fps, dataset = [e.video for e in examples], examples[0].fps, examples_id(examples)
    frames = len(truths[0])
    real = {}
    for each in backbones:
        file = kept / f"real-{each.name}-{dataset}.npz"
        real[each.name] = real_statistics(truths, each, frames, Kept(file, dataset, fps))

    def read_clips(places: Sequence[int], made: Sequence[Video]) -> Found:
        return Found(arrays={e.name: clip_features(e, made).features for e in backbones})

    def further(found: Found) -> Mapping[str, float]:
        metrics: dict[str, float] = {}
        for name, of_real in real.items():
            metrics |= distances(of_real, of_rows(found.arrays[name], frames), name)
        return metrics

    settings = [f"{each.name} {each.weights} {each.resize}" for each in backbones]
    return Reader(read_clips, further, " ".join(settings))
