"""Prompts of `sora sample`, expanded as --expand says."""

import dataclasses
from typing import Any

from sora_jax.expansion.expand import expand, make_expander
from sora_jax.networks import LoadedRun
from sora_jax.sample.generate import Sampler
from sora_jax.sample.requests import Request


def expanded(
    run: LoadedRun, sampler: Sampler, requests: list[Request], by: str | None, model: str | None
) -> tuple[list[Request], list[dict[str, Any]]]:
    """The requests with prompts as --expand makes them, `by` whom and with which `model`, and
    what the files say of that; prints why a prompt stays as it is.

    Raises:
        ConfigError: --expand is neither offline nor an address, or lacks --expand_model.
        ExpansionError: the endpoint fails.
    """
    if by is None:
        return requests, [{} for _ in requests]
    expander = make_expander(by, model, run.experiment.world)

    def fits(prompt: str) -> bool:
        return sampler.captions.length(prompt) <= sampler.text_length

    found = [
        expand(request.prompt, request.seed, request.frames == 1, expander, fits)
        for request in requests
    ]
    for prompt, reason in dict.fromkeys((each.before, each.refused) for each in found):
        if reason is not None:
            print(f"not expanded, for {reason}: {prompt}")
    made = [
        dataclasses.replace(request, prompt=each.after)
        for request, each in zip(requests, found, strict=True)
    ]
    return made, [each.as_metadata() for each in found]
