"""Whether a clip shows what its caption says: objects read from pixels, compared with the facts.

What the decoder cannot read counts as wrong; nothing is averaged out. Objects are matched by
colour, which is theirs alone in a scene.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from sora_jax.world.caption import ObjectFacts
from sora_jax.world.decode import DecodedScene, decode

Facts = tuple[ObjectFacts, ...]

ATTRIBUTES = ("shape", "size", "movement", "direction", "speed")  # of one object
QUESTIONS = ("colour", *ATTRIBUTES, "count", "coverage")
BOOTSTRAPS = 1_000


@dataclasses.dataclass(frozen=True)
class Tally:
    """Questions asked of each clip, and how many of them it answers right.

    `colour`: is there an object of each prompted colour. Attributes: is there one object of that
    colour, and is it as prompted; asked where the caption tells it. `count`: are there as many
    objects as prompted. `coverage`: can the clip be read at all, right or wrong.
    """

    right: Int[np.ndarray, "clips questions"]
    asked: Int[np.ndarray, "clips questions"]

    def scores(self) -> dict[str, float]:
        """Share of right answers to each question that was asked."""
        shares = _shares(self.right.sum(0), self.asked.sum(0))
        return {name: float(shares[number]) for number, name in self._names()}

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of `scores`, over the clips."""
        clips = len(self.right)
        draws = np.random.default_rng(seed).integers(clips, size=(BOOTSTRAPS, clips))
        shares = _shares(self.right[draws].sum(1), self.asked[draws].sum(1))
        # A draw that happens to hold no clip with the question says nothing.
        return {
            name: (
                float(np.nanquantile(shares[:, number], 0.025)),
                float(np.nanquantile(shares[:, number], 0.975)),
            )
            for number, name in self._names()
        }

    def _names(self) -> list[tuple[int, str]]:
        return [
            (number, question if question == "coverage" else f"{question}_accuracy")
            for number, question in enumerate(QUESTIONS)
            if self.asked[:, number].any()
        ]


def _shares(right: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """right / asked, nan where nothing was asked."""
    return np.where(asked > 0, right / np.maximum(asked, 1), np.nan)


def read(videos: Iterable[UInt8[np.ndarray, "t h w 3"]], fps: float) -> list[DecodedScene]:
    """What each clip shows."""
    return [decode(video, fps) for video in videos]


def score(scenes: Sequence[DecodedScene], prompted: Sequence[Facts]) -> Tally:
    """Each clip against the facts of its own prompt."""
    answers = [_answers(scene, facts) for scene, facts in zip(scenes, prompted, strict=True)]
    return _tally(answers)


def score_shuffled(scenes: Sequence[DecodedScene], prompted: Sequence[Facts]) -> Tally:
    """Each clip against the facts of every other prompt: the mean over all ways to shuffle the
    captions so that none stays in place. Needs two clips or more."""
    answers = []
    for index, scene in enumerate(scenes):
        others = [facts for place, facts in enumerate(prompted) if place != index]
        answers.append(np.sum([_answers(scene, facts) for facts in others], axis=0))
    return _tally(answers)


def score_clips(
    videos: Sequence[UInt8[np.ndarray, "t h w 3"]], prompted: Sequence[Facts], fps: float
) -> dict[str, float]:
    """Scores of clips against the facts of their prompts, by name."""
    return score(read(videos, fps), prompted).scores()


def frozen(video: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip's first frame, standing still for as long."""
    return np.repeat(video[:1], len(video), axis=0)


def _tally(answers: Sequence[np.ndarray]) -> Tally:
    stacked = np.stack(answers)
    return Tally(right=stacked[:, 0], asked=stacked[:, 1])


def _answers(scene: DecodedScene, facts: Facts) -> Int[np.ndarray, "2 questions"]:
    """Right and asked for each of QUESTIONS."""
    right = dict.fromkeys(QUESTIONS, 0)
    asked = dict.fromkeys(QUESTIONS, 0)
    for told in facts:
        found = [thing for thing in scene.objects if thing.colour == told.colour]
        asked["colour"] += 1
        right["colour"] += bool(found)
        for attribute in ATTRIBUTES:
            wanted = getattr(told, attribute)
            if wanted is not None:
                asked[attribute] += 1
                right[attribute] += len(found) == 1 and getattr(found[0], attribute) == wanted
    asked["count"], right["count"] = 1, int(scene.count == len(facts))
    asked["coverage"], right["coverage"] = 1, int(scene.count is not None)
    return np.array([list(right.values()), list(asked.values())])
