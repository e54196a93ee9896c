"""Prompts of `sora sample`, expanded as --expand says."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sora_jax.expansion.expand import Expansion, expand, make_expander
from sora_jax.networks import LoadedRun
from sora_jax.sample.generate import Sampler
from sora_jax.sample.requests import Request

Story = tuple[tuple[float, str], ...]


@dataclasses.dataclass(frozen=True)
class Told:
    """A request and the prompts that take over in it, as the network reads them, and what the file
    says of how they came to be."""

    request: Request
    story: Story
    said: dict[str, Any]


def expanded(
    run: LoadedRun,
    sampler: Sampler,
    requests: Sequence[Request],
    story: Story,
    by: str | None,
    model: str | None,
) -> list[Told]:
    """The requests, and of each the story, with prompts as --expand makes them, `by` whom and with
    which `model`; prints why a prompt stays as it is.

    Raises:
        ConfigError: --expand is neither offline nor an address, or lacks --expand_model.
        ExpansionError: the endpoint fails.
    """
    if by is None:
        return [Told(request, story, {}) for request in requests]
    expander = make_expander(by, model, run.experiment.world)

    def fits(prompt: str) -> bool:
        return sampler.captions.length(prompt) <= sampler.text_length

    def found(prompt: str, request: Request) -> Expansion:
        return expand(prompt, request.seed, request.frames == 1, expander, fits)

    all_found = [
        (request, [found(prompt, request) for prompt in (request.prompt, *(p for _, p in story))])
        for request in requests
    ]
    refused = [(each.before, each.refused) for _, several in all_found for each in several]
    for prompt, reason in dict.fromkeys(refused):
        if reason is not None:
            print(f"not expanded, for {reason}: {prompt}")
    return [_told(request, story, *several) for request, several in all_found]


def _told(request: Request, story: Story, first: Expansion, *turns: Expansion) -> Told:
    after = tuple((second, turn.after) for (second, _), turn in zip(story, turns, strict=True))
    before = {"story_before_expansion": [list(turn) for turn in story]} if story else {}
    return Told(
        dataclasses.replace(request, prompt=first.after), after, first.as_metadata() | before
    )
