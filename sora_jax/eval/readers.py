"""What is read off clips that were made from captions: the facts told, VBench's dimensions.

The columns that bound the facts are ground_truth (true clips), ceiling_vae (true clips through the
autoencoder), floor_shuffled (the model's clips under other captions) and static (the model's first
frames, frozen). VBench's dimensions stand beside those of the frozen first frames as well.
"""

from collections.abc import Callable, Sequence

from sora_jax.eval.clip_scores import Score, of_values, prefixed
from sora_jax.eval.examples import Example
from sora_jax.eval.reconstruction import reconstruct
from sora_jax.eval.suite import Found, Video
from sora_jax.eval.world_state import frozen, read, score, score_shuffled
from sora_jax.models.vae import VAE

Reader = Callable[[Sequence[int], Sequence[Video]], Found]
"""Given places of examples and the clips made for them; called by all processes."""


def facts(vae: VAE, examples: Sequence[Example]) -> Reader:
    """Whether clips show what their captions say. All examples have one frame rate."""
    prompted, fps = [example.facts for example in examples], examples[0].fps

    def reader(places: Sequence[int], made: Sequence[Video]) -> Found:
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

    return reader


def vbench(examples: Sequence[Example]) -> Reader:
    """VBench's dimensions that need no network, of videos."""
    from sora_jax.eval.vbench import dimensions  # whose OpenCV training can do without

    def reader(places: Sequence[int], made: Sequence[Video]) -> Found:
        rates = [examples[place].fps for place in places]
        columns = {"vbench/": list(made), "vbench/frozen/": [frozen(video) for video in made]}
        scores: dict[str, Score] = {}
        for column, videos in columns.items():
            found = [dimensions(*each) for each in zip(videos, rates, strict=True)]
            values = {name: of_values(each[name] for each in found) for name in found[0]}
            scores |= prefixed(column, values)
        return Found(scores)

    return reader
