"""Which class names speak of objects that a mirror turns into other objects, or into none."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

SIDES = frozenset(
    {
        *("left", "right", "leftward", "rightward", "leftwards", "rightwards"),
        *("clockwise", "anticlockwise", "counterclockwise"),
        *("links", "rechts", "gauche", "droite", "izquierda", "derecha", "esquerda", "direita", "sinistra", "destra"),
    }
)
NUMBERS = frozenset({"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"})
MANY = 0.5  # share of the classes that must be characters: one class called "x" is no alphabet


def mirrored_classes(names: Iterable[str]) -> str | None:
    """Return why a mirrored object of these classes is another object, or None if nothing speaks for that.

    Sides (``turn left``, ``左折``), characters (``7``, ``b``, ``seven``) and kinds told apart by a number alone
    (``limit 30``, ``limit 50``) are seen from names. What is left out: kinds whose names do not tell, such as hands.
    """
    names = [str(name) for name in names]
    sided = [name for name in names if SIDES & set(words(name)) or {"左", "右"} & set(name)]
    if sided:
        return f"{sided[0]!r} has a side"
    written = [name for name in names if is_character(name)]
    if len(written) >= max(MANY * len(names), 2):
        return f"{', '.join(map(repr, written[:3]))} are characters"
    stems = Counter(re.sub(r"\d+", "#", name) for name in names if re.search(r"\d", name))
    stem, count = stems.most_common(1)[0] if stems else ("", 0)
    return f"{count} classes differ in the number of {stem!r}" if count >= 2 else None


def words(name: str) -> list[str]:
    """Return the words of a name in lower case: parts of ``turn-left``, ``turn_left`` and ``turnLeft`` alike."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def is_character(name: str) -> bool:
    """Whether a name is a number, a letter, or the word of a number, with or without "digit" or "letter" before it."""
    last = re.sub(r"^(digit|letter|number|char|character)[\s_-]*", "", name.strip().lower())
    return last.isdigit() or last in NUMBERS or (len(last) == 1 and last.isalpha() and not is_ideograph(last))


def is_ideograph(character: str) -> bool:
    """Whether a character is a word of its own, such as the Japanese for dog."""
    return "CJK UNIFIED" in unicodedata.name(character, "")
