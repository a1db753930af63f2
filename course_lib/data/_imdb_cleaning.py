"""Turn a review as it was published into plain text.

More than half of the reviews have ``<br />`` in them. A few have other tags, entities such as
``&#345;``, and control characters: bytes of Windows' code page 1252 that somebody took for Latin-1,
so that an ellipsis became U+0085 and a dash U+0096.

Invariants:

- `clean` is a pure function of one text, and cleaning twice is cleaning once.
- Only what is markup or no character at all goes. ``<3``, ``<grin>`` and ``<SPOILER>`` are a
  reviewer's words and stay; so do capitals, punctuation and accents.
"""

import html
import re
from collections.abc import Iterable

import pandas as pd

# The elements people write into a review, and nothing that could be a word in angle brackets.
_ELEMENTS = (
    "a|abbr|b|big|blockquote|br|center|cite|code|dd|del|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|li|"
    "ol|p|pre|q|s|small|span|strike|strong|sub|sup|table|tbody|td|th|tr|tt|u|ul"
)
_ATTRIBUTE = r"""\s+[a-z][a-z:-]*(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))"""
_TAG = re.compile(rf"</?(?:{_ELEMENTS})(?:{_ATTRIBUTE})*\s*/?>|<!--.*?-->", re.IGNORECASE | re.S)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def _characters() -> dict[int, str]:
    """What becomes of characters that mean nothing, or not what they say: code point → text."""
    table = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0), *range(0xE000, 0xF900))}
    for byte in range(0x80, 0xA0):
        meant = bytes([byte]).decode("cp1252", errors="ignore")  # five bytes mean nothing there
        table[byte] = meant or " "
    invisible = (0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), 0x2060, 0xFEFF)
    return table | dict.fromkeys(invisible, "") | dict.fromkeys((0x2028, 0x2029, 0xFFFD), " ")


_CHARACTERS = _characters()


def clean(text: str) -> str:
    """Return the text of a review without markup and control characters.

    Tags become a space and entities the characters they stand for; C1 control characters become
    what the same byte is in code page 1252 (an ellipsis, a dash, a quotation mark); other control
    characters and private ones become a space, invisible ones go; runs of white space become one
    space, and none is left at the ends.

    Args:
        text: A review as it was published.

    Returns:
        One line of text. It is empty only if nothing but markup was there.

    Raises:
        TypeError: `text` is no string.
    """
    if not isinstance(text, str):
        raise TypeError(f"clean takes the text of one review, not {type(text).__name__}")
    while (plainer := _once(text)) != text:  # &amp;lt; takes more than one pass
        text = plainer
        if "<" not in text and "&" not in text:
            break
    return text


def clean_all(texts: Iterable[str] | pd.Series) -> list[str] | pd.Series:
    """Return every text as `clean` does: of a Series a Series with its index, else a list.

    Raises:
        TypeError: One of them is no string.
    """
    cleaned = [clean(text) for text in texts]
    if isinstance(texts, pd.Series):
        return pd.Series(cleaned, index=texts.index, name=texts.name, dtype="str")
    return cleaned


def _once(text: str) -> str:
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found.group()), text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if not text.isascii() or not text.isprintable():
        text = text.translate(_CHARACTERS)
    return " ".join(text.split())
