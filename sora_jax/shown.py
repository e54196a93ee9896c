"""What a run shows of itself while it trains: clips of its first batches, and their captions."""

from typing import Any

import jax

from sora_jax.data.buckets import Bucket
from sora_jax.data.captions import EmbeddedCaptions
from sora_jax.data.pipeline import Steps
from sora_jax.experiment import Experiment
from sora_jax.sample.generate import Captions
from sora_jax.sample.requests import Request
from sora_jax.types import Text

SHOWN_ROWS = 4
SEARCHED_STEPS = 100  # of the schedule, which gives every bucket its share in so many


def first_shown(steps: Steps, experiment: Experiment) -> tuple[Bucket, Any]:
    """The size and first rows of the run's first batch of videos, or of images if it has none: the
    same in every process, so `steps` are of all rows."""
    buckets = experiment.data.buckets
    batches = (steps[k] for k in range(SEARCHED_STEPS))
    found = (batch for batch in batches if buckets[batch[0]].frames > 1)
    bucket, batch = next(found, None) or steps[0]
    return buckets[bucket], jax.tree.map(lambda array: array[:SHOWN_ROWS], batch)


def shown_requests(
    steps: Steps, experiment: Experiment, reader: Captions | None = None
) -> tuple[list[Request], Captions]:
    """What previews sample: as those that are shown, by their captions; and what reads these, which
    is `reader` where batches bring token ids to embed."""
    size, shown = first_shown(steps, experiment)
    captions: Captions = reader or steps.tokenizer
    if isinstance(shown.text, Text):
        rows = zip(shown.text.embeddings, shown.text.segments, strict=True)
        known = {f"caption {n}": row[own > 0] for n, (row, own) in enumerate(rows)}
        prompts = list(known)
        known[""] = steps.clips.empty_caption()
        captions = EmbeddedCaptions(lambda asked: [known[prompt] for prompt in asked])
    else:
        prompts = [steps.tokenizer.decode(ids) for ids in shown.text.tolist()]
    requests = [
        Request(prompt, size.frames, size.height, size.width, float(fps), seed)
        for seed, (prompt, fps) in enumerate(zip(prompts, shown.fps, strict=True))
    ]
    return requests, captions
