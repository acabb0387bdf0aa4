"""A generated language whose names say little about themselves: their context decides the type.

Each name ends in a syllable that says at which distance its context is, and a cue word there says
which of two types the name has. So a model that sees no context is right half of the time, and
scores by distance tell how far a model sees:

| distance | types | where the cue is |
|---|---|---|
| near | PERSON, PLACE | 1 to 3 words before each name |
| middle | EVENT, PRODUCT | 5 to 9 words before each name |
| far | GENE, DRUG | a heading of four at one end; far names are at the other, over 60 words away |

A sentence has about 70 words, several names of each distance, and near and middle ones of both
types. Names are drawn from thousands: a third of those in test data were never seen in training.
"""

from functools import lru_cache
from random import Random
from typing import NamedTuple

from projects.token_classification.conll import Sentence

TYPES = {
    "near": ("PERSON", "PLACE"),
    "middle": ("EVENT", "PRODUCT"),
    "far": ("GENE", "DRUG"),
}
ENDINGS = {"near": "ard", "middle": "ine", "far": "osk"}
GAPS = {"near": (0, 2), "middle": (4, 8)}  # words between a cue and its name
FAR_GAP = 60  # words, at least, between the far cues and their names
CUES_PER_TYPE = 4
HEADING = 4  # cue words of the far type
FILLERS = 200
SYLLABLES = [consonant + vowel for consonant in "bcdfghklmnprstvwz" for vowel in "aeiou"]


class Lexicon(NamedTuple):
    """The words that do not change from sentence to sentence."""

    fillers: list[str]
    cues: dict[str, list[str]]  # by type


@lru_cache
def build_lexicon() -> Lexicon:
    """Draws the fixed words, always the same; no two are equal."""
    random, words = Random(2003), set()
    types = [name for pair in TYPES.values() for name in pair]
    wanted = FILLERS + CUES_PER_TYPE * len(types)
    while len(words) < wanted:
        words.add("".join(random.choices(SYLLABLES, k=random.randint(2, 3))))
    shuffled = sorted(words)
    random.shuffle(shuffled)
    cues = {name: [shuffled.pop() for _ in range(CUES_PER_TYPE)] for name in types}
    return Lexicon(shuffled, cues)


def generate_sentences(count: int, seed: int) -> list[Sentence]:
    """Draws sentences; the same for the same arguments."""
    random = Random(seed)
    return [_generate_sentence(random) for _ in range(count)]


Words = list[tuple[str, str]]  # each with its label


def _generate_sentence(random: Random) -> Sentence:
    pieces = [_draw_local(random, d) for d in ("near", "middle") for _ in range(2)]
    pieces += [_draw_local(random, "near")]
    random.shuffle(pieces)
    inner: Words = []
    for piece in pieces:
        inner += piece + _draw_fillers(random, random.randint(1, 4))
    inner += _draw_fillers(random, max(0, FAR_GAP - len(inner)))
    far_type = random.choice(TYPES["far"])
    cues = build_lexicon().cues[far_type]
    heading = [(word, "O") for word in random.choices(cues, k=HEADING)]
    names = _draw_name(random, "far", far_type) + _draw_fillers(random, random.randint(1, 4))
    names += _draw_name(random, "far", far_type)
    edges = [_draw_fillers(random, random.randint(0, 3)) for _ in range(2)]
    outer = (heading, names) if random.random() < 0.5 else (names, heading)
    sentence = edges[0] + outer[0] + inner + outer[1] + edges[1]
    return Sentence([word for word, _ in sentence], [label for _, label in sentence])


def _draw_local(random: Random, distance: str) -> Words:
    """A cue, words between, and the name that it decides."""
    kind = random.choice(TYPES[distance])
    cue = (random.choice(build_lexicon().cues[kind]), "O")
    between = _draw_fillers(random, random.randint(*GAPS[distance]))
    return [cue, *between, *_draw_name(random, distance, kind)]


def _draw_name(random: Random, distance: str, kind: str) -> Words:
    """One or two words."""
    labels = [f"B-{kind}", f"I-{kind}"][: random.randint(1, 2)]
    return [("".join(random.choices(SYLLABLES, k=2)) + ENDINGS[distance], x) for x in labels]


def _draw_fillers(random: Random, count: int) -> Words:
    return [(word, "O") for word in random.choices(build_lexicon().fillers, k=count)]
