"""Prompts expanded, offline or by an endpoint, and taken back where a fact is lost.

A model that was trained on detailed captions makes more of a detailed prompt. Sora has a language
model lengthen what users write (Video generation models as world simulators, OpenAI 2024, after
DALL-E 3, Betker et al. 2023); what that loses nobody sees. Here both texts are compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sora_jax.errors import ConfigError
from sora_jax.expansion.endpoint import Endpoint
from sora_jax.expansion.kept import lost
from sora_jax.world.completion import complete
from sora_jax.world.prompts import UnreadError
from sora_jax.world.scene import WorldConfig

OFFLINE = "offline"


class Expander(Protocol):
    """Makes a longer prompt of one. `about`: which it is, as JSON data.

    Raises UnreadError where it has nothing to say of the prompt.
    """

    about: dict[str, str]

    def __call__(self, prompt: str, seed: int, is_image: bool) -> str: ...


class Offline:
    """Completes prompts to captions of the procedural world, by rule."""

    def __init__(self, world: WorldConfig) -> None:
        self.about, self._world = {"by": OFFLINE}, world

    def __call__(self, prompt: str, seed: int, is_image: bool) -> str:
        return complete(prompt, seed, is_image, self._world)


@dataclass(frozen=True)
class Expansion:
    """What a network reads in place of a prompt, and how that came to be."""

    before: str
    after: str
    about: dict[str, str]
    refused: str | None  # why it is the prompt as it was

    def as_metadata(self) -> dict[str, Any]:
        """The entries of a sample's metadata."""
        refused = {} if self.refused is None else {"refused": self.refused}
        return {"prompt_before_expansion": self.before, "expansion": self.about | refused}


def make_expander(where: str, model: str | None, world: WorldConfig) -> Expander:
    """`where`: "offline", or the address of an endpoint, which needs the name of a model.

    Raises:
        ConfigError: it is neither, or no model is named.
    """
    if where == OFFLINE:
        return Offline(world)
    endpoint = Endpoint(where, model or "")
    if not model:
        raise ConfigError("--expand with an address needs --expand_model, as the server calls it")
    return endpoint


def expand(
    prompt: str, seed: int, is_image: bool, expander: Expander, fits: Callable[[str], bool]
) -> Expansion:
    """The expansion of a prompt; the prompt itself where that would lose or contradict a fact, or
    be cut where the prompt is not. `fits`: whether the network reads a text to its end.

    Raises:
        ExpansionError: an endpoint fails.
    """
    after, refused = prompt, None
    if prompt.strip():
        try:
            longer = expander(prompt, seed, is_image)
        except UnreadError as error:
            refused = str(error)
        else:
            if fault := lost(prompt, longer):
                refused = f"the expansion {fault}"
            elif fits(prompt) and not fits(longer):
                refused = "the expansion is longer than the run reads"
            else:
                after = longer
    return Expansion(prompt, after, expander.about, refused)
