"""Made-up reviews of films that never were, for when the real ones cannot be had.

A lesson has to work without a network, and teach the same things: so the stand-in has the real
table's columns, its lengths, markup, control characters and repeats, and texts whose sentiment is
not the sum of their words. Opinions are mixed, faint praise comes with loud words ("not a
masterpiece"), and what stands after "but" counts. A bag of words learns most of it, pairs of words
more. It is plainly not real: every sentence is one of a few dozen patterns.

Invariants: each call returns the same table; half of each split is positive; no film is in both.
"""

from collections.abc import Sequence
from random import Random

import pandas as pd

from course_lib.data._imdb_files import frame

_FILMS = 250  # in each split
# The commonest first: a reviewer takes a word of the front more often.
_GOOD = (
    *("good", "great", "funny", "wonderful", "brilliant", "beautiful", "charming", "moving"),
    *("clever", "perfect", "superb", "fresh", "gripping", "honest", "convincing", "memorable"),
    *("delightful", "warm", "witty", "touching", "inventive", "elegant", "subtle", "powerful"),
    *("lovely", "haunting", "joyful", "splendid", "graceful", "thrilling", "refreshing", "tender"),
    *("stunning", "wise", "dazzling", "sincere", "masterly", "radiant", "hilarious", "magical"),
)
_BAD = (
    *("bad", "boring", "terrible", "awful", "stupid", "dull", "poor", "weak", "lame", "painful"),
    *("wooden", "predictable", "silly", "flat", "tedious", "annoying", "cheap", "messy"),
    *("pointless", "forgettable", "clumsy", "lifeless", "horrible", "dreadful", "shallow"),
    *("sloppy", "hollow", "stale", "dreary", "tiresome", "muddled", "grating", "bland", "dire"),
    *("ridiculous", "charmless", "laboured", "feeble", "vapid", "insulting"),
)
_ASPECTS = (
    *("acting", "plot", "script", "music", "ending", "camera work", "dialogue", "pacing", "story"),
    *("lead actor", "lead actress", "villain", "first half", "second half", "humour", "editing"),
    *("opening", "soundtrack", "love story", "final scene", "supporting cast", "direction"),
)
_THEMES = (
    *("lighthouse", "submarine", "wedding", "detective", "desert", "circus", "robot", "lawyer"),
    *("hospital", "train", "vampire", "farm", "casino", "school", "spaceship", "boxer", "ghost"),
    *("dancer", "prison", "museum", "pirate", "mountain", "twin", "violin", "castle", "spy"),
    *("volcano", "sheriff", "nurse", "diamond", "piano", "jungle", "dragon", "ferry", "painter"),
)
_HOW = ("", "", "", "", "really ", "very ", "so ", "quite ", "rather ", "truly ", "utterly ")
_PLAIN = (  # {a}: an aspect, {h}: how much, {x}: a word of the sentence's sign, {y}: of the other
    "The {a} was {h}{x}.",
    "I found the {a} {h}{x}.",
    "What a {x} film, and what a {x} {t}!",
    "The {a} is {h}{x}, like the rest of it.",
    "It has a {h}{x} {a}.",
)
_TURNED = (
    "The {a} was not {y}.",
    "I did not find the {a} {h}{y}.",
    "There was nothing {y} about the {a}.",
    "The {a} is never {y}.",
    "Nobody can call the {a} {y}.",
)
_MIXED = (
    "The {a} was {y}, but the {b} was {h}{x}.",
    "Although the {a} is {h}{y}, the {b} is {x}.",
    "People say it is {y} and {z}, but I think it is {x}.",
)
_FILLER = (
    "The story is about a {t} and a {u}.",
    "It begins when a {t} turns up near the {u}.",
    "I saw it on television {w}.",
    "My friends and I watched it {w}.",
    "There is a long scene with the {t} in the middle.",
    "Then the {u} disappears, and everybody looks for the {t}.",
    "It was made before the other film about a {t}.",
    "The {u} comes back {w}, and you can guess what it has to do with the {t}.",
    "As in most films of this kind, somebody has a secret about the {u}.",
    "I have read the book, where the {t} plays a smaller part.",
    "It runs for about two hours.",
    "The {a} is by people I had never heard of.",
)
_WHEN = ("last night", "years ago", "with my sister", "on a rainy Sunday", "again", "late at night")
_LAST = {
    1: ("I would watch it again.", "Worth your time.", "Do not miss it.", "Ten more of these!"),
    -1: ("I would not watch it again.", "Not worth your time.", "Miss it.", "No more of these!"),
}


def make_stand_in(rows: int = 2_000) -> pd.DataFrame:
    """Make up reviews with the columns of the real ones.

    A logistic regression on single words gets 88 % of the test rows right, one on pairs too 91 %.

    Args:
        rows: How many in each split; an even number.

    Returns:
        ``text``, ``label``, ``split``, ``rating``, ``movie``; first the training rows, in random
        order. About one row in a hundred repeats the text of another.
    """
    rng = Random(2011)
    columns: dict[str, list] = {"text": [], "label": [], "split": [], "rating": [], "movie": []}
    for number, split in enumerate(("train", "test")):
        labels = [0, 1] * (rows // 2)
        rng.shuffle(labels)
        for row, label in enumerate(labels):
            film = _pick(rng, range(_FILMS)) + number * _FILMS
            rating = (7 if label else 1) + int(4 * rng.random())
            text = _review(rng, film, rating)
            if row and rng.random() < 0.016:  # again, or an earlier one of either split
                text = _earlier(rng, columns, label) or text
            for column, value in zip(
                columns.values(), (text, label, split, rating, f"tt{film:04}"), strict=True
            ):
                column.append(value)
    return frame(columns)


def _earlier(rng: Random, columns: dict[str, list], label: int) -> str | None:
    """Return the text of a row at random, if it has that label."""
    row = _pick(rng, range(len(columns["text"])))
    return columns["text"][row] if columns["label"][row] == label else None


def _review(rng: Random, film: int, rating: int) -> str:
    """Write the review of a film by somebody who gave it `rating`, 1 to 10."""
    sign = 1 if rating > 5 else -1
    sure = 0.92 if rating in (1, 2, 9, 10) else 0.82  # how often a judgement is of the sign
    theme, other = (_THEMES[(film * step + step) % len(_THEMES)] for step in (5, 7))
    wanted = min(400, max(20, int(rng.lognormvariate(4.4, 0.7))))  # words
    sentences, words = [], 0
    while words < wanted:
        if rng.random() < 0.45:
            sentence = _fill(rng, _pick(rng, _FILLER), sign, theme, other)
        else:
            judged = sign if rng.random() < sure else -sign
            kind = rng.random()
            patterns = _PLAIN if kind < 0.8 else _TURNED if kind < 0.9 else _MIXED
            sentence = _fill(rng, _pick(rng, patterns), judged, theme, other)
        sentences.append(sentence)
        words += sentence.count(" ") + 1
    if rng.random() < 0.6:
        sentences.append(_pick(rng, _LAST[sign if rng.random() < 0.85 else -sign]))
    return _set(rng, sentences)


def _fill(rng: Random, pattern: str, sign: int, theme: str, other: str) -> str:
    """Fill a pattern with words, those of judgement with the sign or against it."""
    with_sign, against = (_GOOD, _BAD) if sign > 0 else (_BAD, _GOOD)
    return pattern.format(
        a=_pick(rng, _ASPECTS),
        b=_pick(rng, _ASPECTS),
        h=_pick(rng, _HOW),
        x=_pick(rng, with_sign, power=1.7),
        y=_pick(rng, against, power=1.7),
        z=_pick(rng, against, power=1.7),
        t=theme,
        u=other,
        w=_pick(rng, _WHEN),
    )


def _set(rng: Random, sentences: list[str]) -> str:
    """Join sentences as reviewers do: with breaks, other markup, and signs of the wrong code."""
    breaks = rng.random() < 0.6
    text = sentences[0]
    for sentence in sentences[1:]:
        text += ("<br /><br />" if breaks and rng.random() < 0.15 else " ") + sentence
    odd = rng.random()
    if odd < 0.04:
        text = text.replace(", ", " \x96 ", 1)
    elif odd < 0.07:
        text = text.replace(". ", "\x85 ", 1)
    elif odd < 0.08:
        text = text.replace("film", "<i>film</i>", 1)
    elif odd < 0.09:
        text = text.replace(" and ", " &amp; ", 1)
    return text


def _pick(rng: Random, among: Sequence, power: float = 1.0):
    """Pick one at random; with a `power` over 1 rather one of the first."""
    return among[int(len(among) * rng.random() ** power)]
