"""What a prompt says of a scene: captions and freer words for the same facts, read strictly."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from sora_jax.world.caption import Movement
from sora_jax.world.scene import Colour, Direction, Shape, Size, Speed

_NUMERALS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
NUMBERS = {word: number for number, word in enumerate(_NUMERALS, start=1)}
NUMBERS |= {str(number): number for number in NUMBERS.values()}
SEVERAL = 0  # a count of two or more that is left open: "circles"

_VERBS: dict[Movement, str] = {
    "moves": "moves move moving goes go going",
    "rests": "rests rest resting stands stand standing stays stay staying still",
    "falls": "falls fall falling drops drop dropping",
    "thrown": "thrown",
    "swings": "swings swing swinging",
}
_SHAPES = {f"{shape}{'es' if shape == 'cross' else 's'}": shape for shape in get_args(Shape)}
_WORDS: dict[str, Mapping[str, Any]] = {
    "count": {**NUMBERS, "several": SEVERAL, "some": SEVERAL},
    "size": {size: size for size in get_args(Size)} | {"big": "large", "little": "small"},
    "colour": {colour: colour for colour in get_args(Colour)},
    "shape": {shape: shape for shape in get_args(Shape)} | _SHAPES,
    "movement": {word: movement for movement, words in _VERBS.items() for word in words.split()},
    "direction": {direction: direction for direction in get_args(Direction)},
    "speed": {"slow": "slow", "slowly": "slow", "fast": "fast", "quick": "fast", "quickly": "fast"},
}
"""The words of each kind of fact, and what they mean."""

_ANY_SHAPE = {"shape", "object", "shapes", "objects"}
_NOUNS = _WORDS["shape"].keys() | _ANY_SHAPE
_PLURALS = _SHAPES.keys() | {"shapes", "objects"}
_FILLERS = {"a", "an", "the", "is", "are", "that", "which"}
_OF_SEVERAL = {"move", "go", "rest", "stand", "stay", "fall", "drop", "swing", "are"}
_CAMERA = re.compile(r"(?:the )?camera (?:pans|panning|moves|moving) (left|right|up|down)")
_SPLIT = re.compile(r"\s*[,;.]\s*(?:and |while |with )?|\s+(?:and|while|with)\s+")


class UnreadError(ValueError):
    """A text that says something else than what scenes are told by; the message says what."""


@dataclass(frozen=True)
class Described:
    """What a text says of one object, or of several alike; None is left open.

    `count` is SEVERAL where it is two or more.
    """

    count: int = 1
    size: Size | None = None
    colour: Colour | None = None
    shape: Shape | None = None
    movement: Movement | None = None
    direction: Direction | None = None
    speed: Speed | None = None

    def __str__(self) -> str:
        told = (self.size, self.colour, self.shape or "object")
        motion = (self.movement, self.direction, self.speed)
        return " ".join(word for word in (*told, *motion) if word)

    def singles(self) -> list["Described"]:
        """One by one; of several there are two."""
        return [replace(self, count=1)] * (self.count or 2)

    def agrees(self, other: "Described") -> bool:
        """Whether the other says all that this one does, however many they are."""
        return all(
            getattr(self, kind) in (None, getattr(other, kind))
            for kind in _WORDS
            if kind != "count"
        )


@dataclass(frozen=True)
class Prompt:
    """What a text says of a scene. `pan`: where the camera moves, None where that is left open."""

    objects: tuple[Described, ...]
    pan: Direction | None

    def singles(self) -> list[Described]:
        """The objects one by one; of several there are two."""
        return [single for each in self.objects for single in each.singles()]


def read_prompt(text: str) -> Prompt:
    """The facts of a caption of either style, or of a prompt such as "two big circles fall".

    Objects are parted by commas, "and", "while" or "with". A verb in the plural is of all objects
    before it that have none: "a circle and a square move left".

    Raises:
        UnreadError: a word is unknown, or one object is told two things of a kind.
    """
    text = " ".join(text.lower().split()).replace("-sized", "")
    text = re.sub(r"\b(?:to|towards?) the (left|right)\b", r"\1", text)
    text = re.sub(r"\b(left|right|up|down)wards?\b", r"\1", text).strip(" ,.!")
    groups: list[list[str]] = []
    pan: Direction | None = None
    for part in _SPLIT.split(text):
        words = part.split()
        if camera := _CAMERA.fullmatch(part):
            way: Direction = _WORDS["direction"][camera[1]]
            if pan not in (None, way):
                raise UnreadError(f"the camera pans {pan} and {way}")
            pan = way
        elif groups and not _NOUNS & set(words):
            groups[-1] += words  # "a red circle, moving left"
        else:
            groups.append(words)
    objects: list[Described] = []
    for words in groups:
        last = _read_object(words)
        if _OF_SEVERAL & set(words):
            motion: Any = {kind: getattr(last, kind) for kind in ("movement", "direction", "speed")}
            objects = [
                each if each.movement or each.speed else replace(each, **motion) for each in objects
            ]
        objects.append(last)
    if not objects:
        raise UnreadError("it names no shape")
    return Prompt(tuple(objects), pan)


def _read_object(words: Sequence[str]) -> Described:
    told: dict[str, Any] = {}
    for word in words:
        if word in _FILLERS or word in _ANY_SHAPE:
            continue
        kind = next((kind for kind, meanings in _WORDS.items() if word in meanings), None)
        if kind is None:
            raise UnreadError(f"captions of the world have no '{word}'")
        if kind == "direction" and "movement" not in told:
            raise UnreadError(
                f"'{word}' is no motion here, and captions of the world tell no place"
            )
        if told.setdefault(kind, _WORDS[kind][word]) != _WORDS[kind][word]:
            raise UnreadError(f"'{word}' is the second {kind} of one object")
    nouns = _NOUNS & set(words)
    if not nouns:
        raise UnreadError(f"'{' '.join(words)}' names no shape")
    told.setdefault("count", SEVERAL if nouns & _PLURALS else 1)
    if told.get("movement") == "falls":
        told.setdefault("direction", "down")
    return Described(**told)


def told_words(text: str) -> dict[str, set[str]]:
    """What free text tells by single words of five kinds, whatever it tells it of."""
    words = re.findall(r"[a-z]+", text.lower())
    return {
        kind: {_WORDS[kind][word] for word in words if word in _WORDS[kind]}
        for kind in ("size", "colour", "shape", "direction", "speed")
    }


def lost_fact(asked: Prompt, told: Prompt) -> str | None:
    """What the second does to a fact of the first, in words that go on from "it"; None: nothing.

    Every object asked for is one of its own among those told, and none is told beside them where
    all are counted.
    """
    singles = told.singles()
    wanted = [single for each in asked.objects for single in each.singles()]
    is_open = any(each.count == SEVERAL for each in asked.objects)
    if len(singles) < len(wanted) or (len(singles) > len(wanted) and not is_open):
        return f"tells of {len(singles)} objects in place of {len(wanted)}"
    for each in wanted:
        if not any(each.agrees(single) for single in singles):
            return f"has no '{each}'"
    for single in singles:
        if not any(each.agrees(single) for each in wanted):
            return f"adds '{single}'"
    if not _all_found(wanted, singles):
        return "does not have each of " + ", ".join(f"'{each}'" for each in wanted)
    if asked.pan not in (None, told.pan):
        return f"does not pan the camera {asked.pan}"
    return None


def _all_found(wanted: Sequence[Described], singles: Sequence[Described]) -> bool:
    """Whether each of the wanted is another one of the singles."""
    if not wanted:
        return True
    return any(
        wanted[0].agrees(single) and _all_found(wanted[1:], [*singles[:i], *singles[i + 1 :]])
        for i, single in enumerate(singles)
    )
