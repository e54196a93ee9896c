"""Suites by the names that users give them."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sora_jax.errors import ConfigError, nearest
from sora_jax.eval import readers, suites
from sora_jax.eval.examples import Example
from sora_jax.eval.material import Material
from sora_jax.eval.readers import Reader
from sora_jax.eval.suite import Suite
from sora_jax.files import local_path

if TYPE_CHECKING:
    from sora_jax.eval.clip_model import CLIP


def _reconstruction(material: Material) -> list[Suite]:
    return [suites.reconstruction(material.sampler.models.vae, _every(material))]


def _loss(material: Material) -> list[Suite]:
    return [suites.loss(material.sampler, _every(material))]


def _animation(material: Material) -> list[Suite]:
    if not material.videos:
        return []
    if not material.of_the_world:
        return [suites.animation(material.sampler, material.videos, nearest=True)]
    return [suites.animation(material.sampler, material.videos[: material.config.animations])]


def _world(material: Material) -> list[Suite]:
    if material.simulated is None:
        return []
    from sora_jax.eval.world_suites import world_suites

    config = material.config
    arguments = (*material.simulated, config.prompts, config.seed)
    return world_suites(material.sampler, config.worlds, *arguments)


def _modes(material: Material) -> list[Suite]:
    if material.captioned is None:
        return []
    from sora_jax.eval.mode_suites import mode_suites, modes

    models, config = material.sampler.models, material.config
    coded = (models.vae.config.temporal, models.vae.config.spatial * models.patch)
    tasks = modes(*material.captioned, *coded, config.animations, config.seed)
    return mode_suites(material.sampler, tasks)


def _every(material: Material) -> Sequence[Example]:
    """Clips for what needs no facts; of captioned scenes, videos are enough."""
    return material.videos if material.of_the_world else [*material.videos, *material.images]


def _text(material: Material, examples: Sequence[Example]) -> Reader | None:
    if not material.of_the_world:
        return None
    return readers.facts(material.sampler.models.vae, examples)


def _vbench(material: Material, examples: Sequence[Example]) -> Reader | None:
    return readers.vbench(examples) if len(examples[0].video) > 1 else None


def _fvd(material: Material, examples: Sequence[Example]) -> Reader | None:
    """By I3D of videos, by EfficientNet-Lite0 of pictures, and by the user's own of either."""
    from sora_jax.eval import backbone

    networks, frames = material.networks, len(examples[0].video)
    given = [backbone.given_backbone(place) for place in networks.backbones]
    usual = backbone.i3d_backbone(networks.i3d) if frames > 1 else backbone.efficientnet_backbone()
    chosen = [usual, *(each for each in given if each.frames <= frames)]
    return readers.distribution(examples, chosen, networks.kept)


def _clip(material: Material, examples: Sequence[Example]) -> Reader | None:
    directory = material.networks.clip
    if not directory:
        raise ConfigError(
            "suite clip needs --clip DIR, a folder of CLIP as Hugging Face stores it: "
            "config.json, model.safetensors, tokenizer.json"
        )
    return readers.clip(_clip_model(directory), examples)


@functools.lru_cache(maxsize=1)
def _clip_model(directory: str) -> "CLIP":
    """Read once for videos, pictures and all checkpoints."""
    from sora_jax.eval.clip_weights import read_clip  # whose libraries training can do without

    return read_clip(local_path(directory))


SUITES: dict[str, Callable[[Material], list[Suite]]] = {
    "reconstruction": _reconstruction,
    "loss": _loss,
    "animation": _animation,
    "world": _world,
    "modes": _modes,
}
READERS: dict[str, Callable[[Material, Sequence[Example]], Reader | None]] = {
    "text": _text,
    "vbench": _vbench,
    "fvd": _fvd,
    "clip": _clip,
}
"""Of clips that are made from captions, once, in however many ways they are read."""
DEFAULT = ("reconstruction", "loss", "text", "animation", "world")


def chosen_suites(names: Sequence[str], material: Material) -> list[Suite]:
    """The suites of these names, or, of none, those of DEFAULT that the clips allow.

    Raises:
        ConfigError: there is none of a name, or the clips do not allow it.
    """
    known = (*SUITES, *READERS)
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"; there are: {', '.join(known)}"
            raise ConfigError(f"there is no suite '{name}'{hint}")
    wanted = names or DEFAULT
    found = {name: SUITES[name](material) for name in wanted if name in SUITES}
    read = {
        "text_to_video": _readers(material, material.videos, wanted),
        "text_to_image": _readers(material, material.images, wanted),
    }
    for name in names:
        if not found.get(name) and not any(name in ways for ways in read.values()):
            raise ConfigError(f"suite {name} has nothing to score on these clips: leave it out")
    examples = {"text_to_video": material.videos, "text_to_image": material.images}
    generated = [
        suites.generation(kind, material.sampler, examples[kind], ways)
        for kind, ways in read.items()
        if ways
    ]
    return [*(suite for each in found.values() for suite in each), *generated]


def _readers(
    material: Material, examples: Sequence[Example], wanted: Sequence[str]
) -> dict[str, Reader]:
    """Of these names, those that can read such clips."""
    made = {n: READERS[n](material, examples) for n in wanted if n in READERS and examples}
    return {name: reader for name, reader in made.items() if reader is not None}
