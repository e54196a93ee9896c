"""Whether a clip shows what its caption says: objects read from pixels, compared with the facts.

What the decoder cannot read counts as wrong; nothing is averaged out. Objects are matched by
colour, which is theirs alone in a scene.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from sora_jax.eval.clip_scores import Score
from sora_jax.world.caption import ObjectFacts
from sora_jax.world.decode import DecodedScene, decode

Facts = tuple[ObjectFacts, ...]

ATTRIBUTES = ("shape", "size", "movement", "direction", "speed")  # of one object
QUESTIONS = ("colour", *ATTRIBUTES, "count", "coverage")


def read(videos: Iterable[UInt8[np.ndarray, "t h w 3"]], fps: float) -> list[DecodedScene]:
    """What each clip shows."""
    return [decode(video, fps) for video in videos]


def score(scenes: Sequence[DecodedScene], prompted: Sequence[Facts]) -> dict[str, Score]:
    """Each clip against the facts of its own prompt: of each question, the share of right answers,
    weighed by how often it is asked.

    `colour`: is there an object of each prompted colour. Attributes: is there one object of that
    colour, and is it as prompted; asked where the caption tells it. `count`: are there as many
    objects as prompted. `coverage`: can the clip be read at all, right or wrong.
    """
    return _scores([_answers(*each) for each in zip(scenes, prompted, strict=True)])


def score_shuffled(
    scenes: Sequence[DecodedScene], places: Sequence[int], prompted: Sequence[Facts]
) -> dict[str, Score]:
    """Each clip against every prompt but its own, whose place among `prompted` is given: the mean
    over all ways to shuffle the captions so that none stays in place. Needs two prompts or more."""
    answers = []
    for scene, own in zip(scenes, places, strict=True):
        others = [facts for place, facts in enumerate(prompted) if place != own]
        answers.append(np.sum([_answers(scene, facts) for facts in others], axis=0))
    return _scores(answers)


def frozen(video: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip's first frame, standing still for as long."""
    return np.repeat(video[:1], len(video), axis=0)


def _scores(answers: Sequence[np.ndarray]) -> dict[str, Score]:
    """By name, of answers [2, questions] of each clip."""
    right, asked = np.stack(answers, 1).astype(np.float64)
    shares = right / np.maximum(asked, 1)
    return {
        question if question == "coverage" else f"{question}_accuracy": Score(
            shares[:, number], asked[:, number]
        )
        for number, question in enumerate(QUESTIONS)
    }


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
