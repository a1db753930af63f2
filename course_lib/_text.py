"""How wide a text is before it is drawn, so that it can be broken where it no longer fits.

matplotlib clips or overlaps what is too long. All measures are in inches, with the font that comes
with matplotlib, so a figure has the same line breaks on every machine.
"""

from functools import lru_cache

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

FONT = "DejaVu Sans"
DPI = 120  # letters are fitted to the pixels, so their width depends on it
_RENDERER = RendererAgg(1, 1, DPI)


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """The width of one line of text as it will be drawn.

    Args:
        text: The line. A ``$`` is a dollar here, never the start of a formula.
        size: Font size in points.
        bold: Whether it will be drawn in bold.

    Returns:
        Inches; 0 for an empty line.
    """
    font = FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")
    return _RENDERER.get_text_width_height_descent(text, font, ismath=False)[0] / DPI


def wrap(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Break a text into lines; a single word that is too long is broken as well.

    Args:
        text: Words separated by white space.
        width: The room in inches.
        size: Font size in points.
        bold: Whether it will be drawn in bold.

    Returns:
        The lines, at least one.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size, bold) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and text_width(lines[-1] + letter, size, bold) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def balance(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Wrap into as few lines as fit, of about the same length, so that no word is left alone.

    Args and result are those of ``wrap``.
    """
    lines = wrap(text, width, size, bold)
    while len(closer := wrap(text, width := width - 0.1, size, bold)) == len(lines) > 1:
        lines = closer
    return lines
