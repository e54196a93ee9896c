"""Whether an expansion keeps all that its prompt says: facts of scenes, or else words that matter.

No list of words knows which are nouns, so all but those of the smallest meaning count. That refuses
more than it must, and what is refused costs only the expansion.
"""

import re

from sora_jax.world.prompts import NUMBERS, UnreadError, lost_fact, read_prompt, told_words

NUMERALS = NUMBERS | {"nine": 9, "ten": 10, "eleven": 11, "twelve": 12}
WORD = re.compile(r"\w+")
SMALL_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be been being by for from has have her his in into is it its of on or "
        "s that the their there these this those to was were which while who with"
    )
)
ENDINGS = ("ing", "ed", "es", "s", "ly", "e")
QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]|(?<!\w)'([^']+)'(?!\w)")


def lost(prompt: str, expansion: str) -> str | None:
    """What an expansion loses or contradicts, in words that go on from "the expansion"; None:
    nothing that is seen.

    Texts that both read as scenes of the procedural world are compared by their facts. Of others,
    numbers, quoted text, capitalised names and all words that matter must be there; where the
    prompt is of the world, no other colour, shape, size, speed or direction may stand beside.
    """
    try:
        asked = read_prompt(prompt)
    except UnreadError:
        return _lost_word(prompt, expansion)
    try:
        return lost_fact(asked, read_prompt(expansion))
    except UnreadError:
        return _contradiction(prompt, expansion) or _lost_word(prompt, expansion)


def _contradiction(prompt: str, expansion: str) -> str | None:
    told = told_words(expansion)
    for kind, asked in told_words(prompt).items():
        if asked and (others := sorted(told[kind] - asked)):
            return f"says '{others[0]}' beside '{sorted(asked)[0]}'"
    return None


def _lost_word(prompt: str, expansion: str) -> str | None:
    for double, single in QUOTED.findall(prompt):
        if (double or single) not in expansion:
            return f"lacks the quoted '{double or single}'"
    said, there = WORD.findall(prompt), WORD.findall(expansion)
    stems = {_stem(word) for word in there}
    for place, word in enumerate(said):
        is_name = place > 0 and word[0].isupper()
        if is_name and word not in there:
            return f"lacks the name '{word}'"
        if word.lower() not in SMALL_WORDS and _stem(word) not in stems:
            return f"lacks '{word}'"
    return None


def _stem(word: str) -> str:
    """What forms of a word share, roughly: "moving", "moves" and "move" are "mov"; 2 is "two"."""
    word = word.lower()
    if word in NUMERALS:
        return str(NUMERALS[word])
    for ending in ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2 and re.search("[aeiouy]", stem):
            word = stem
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]  # "running"
    return word[:-1] + "i" if word.endswith("y") else word  # "flies"
