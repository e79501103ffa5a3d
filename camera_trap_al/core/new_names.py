"""Typed names that are no class yet: which become classes, which wait, and which look like a slip of the hand."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from camera_trap_al.core.matching import KnownClasses, edit_distance, folded, nfc
from camera_trap_al.core.records import ImageKey

# Letters of the longer word → letters that may differ for it to be the same word: "boar" and "bear" are asked about, "cat"
# and "rat" are not.
SLIPS = ((8, 2), (4, 1))
# New names compared with others letter by letter; a file with more of them holds something else than species.
LOOK_THROUGH = 500
MOST_LIKE = 3
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class NewName:
    """A name that is no class yet, spelled as it was most often.

    Parameters
    ----------
    name : without outer blanks
    images : how many this file names so, or wait for it from earlier files
    like : classes and other words known, and commoner new names, of which it may be another spelling
    is_class : whether it becomes a class now
    """

    name: str
    images: int
    like: tuple[str, ...] = ()
    is_class: bool = False


def spelled_alike(one: str, other: str) -> bool:
    """Return whether two names may be one, spelled in two ways.

    They are where they differ in case, accents, blanks, hyphens or what cannot be seen; or where they have as many words,
    each pair of which differs in no letter if it is shorter than 4, in one at most (or two neighbours that changed places)
    from 4 letters on, in two from 8 on. Names that hold other numbers are never alike.
    """
    first, second = _words(one), _words(other)
    joined = _letters(one), _letters(other)
    if not joined[0] or joined[0] == joined[1]:
        return joined[0] == joined[1] and (bool(joined[0]) or folded(one) == folded(other))
    if _DIGITS.findall(joined[0]) != _DIGITS.findall(joined[1]) or len(first) != len(second):
        return False
    return all(_is_slip(a, b) for a, b in zip(first, second, strict=True))


def weigh_names(
    typed: Iterable[tuple[ImageKey, str]],
    waiting: Mapping[ImageKey, str],
    known: Collection[str],
    *,
    least: int,
    asks: bool = True,
) -> dict[str, NewName]:
    """Return what becomes of each new name of a label file, by its folded spelling.

    A name becomes a class once `least` images bear it. One that may be another spelling of what is known, or of a commoner
    new name, waits all the same until it is typed again: in a later file, for another image. One that has the very letters
    of the other, but for case, accents, blanks and hyphens, waits even then: whoever spells so does it each time.

    Parameters
    ----------
    typed : image and name, of each row of the file
    waiting : image → the name that an earlier file gave it, which is no class yet
    known : the classes, and the words that mean something else
    asks : whether spellings are looked at; without, each name is taken as meant
    """
    spellings: dict[str, Counter[str]] = {}
    here: dict[str, set[ImageKey]] = {}
    for key, text in typed:
        fold = folded(text)
        spellings.setdefault(fold, Counter())[nfc(text).strip()] += 1
        here.setdefault(fold, set()).add(key)
    if not here:
        return {}
    before: dict[str, set[ImageKey]] = {}
    for key, text in waiting.items():
        fold = folded(text)
        before.setdefault(fold, set()).add(key)
        spellings.setdefault(fold, Counter())[nfc(text).strip()] += key not in here.get(fold, ())
    no_image: set[ImageKey] = set()
    images = {fold: len(here.get(fold, no_image) | before.get(fold, no_image)) for fold in spellings}
    found: dict[str, NewName] = {}
    commoner: list[str] = []
    # What is commoner counts as meant; of equals the shorter.
    for fold in sorted(spellings, key=lambda fold: (-images[fold], len(fold), fold)):
        words, mine, theirs = spellings[fold], here.get(fold, no_image), before.get(fold, no_image)
        name = min(words, key=lambda word: (-words[word], word.swapcase()))
        others = (*known, *commoner) if asks and len(found) < LOOK_THROUGH else ()
        like = tuple(other for other in others if spelled_alike(name, other))[:MOST_LIKE]
        is_twin = any(_letters(name) == _letters(other) for other in like)
        is_meant = not like or bool(theirs and mine - theirs and not is_twin)
        found[fold] = NewName(name, images[fold], like, bool(mine) and is_meant and images[fold] >= least)
        if is_meant:
            commoner.append(name)
    return {fold: found[fold] for fold in here}


def joined_names(texts: Iterable[str], known: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the folded spellings of texts that join names, as in "deer/fox", and these: known ones, or texts themselves."""
    names = {folded(text): nfc(text).strip() for text in sorted(texts)}
    words = KnownClasses((*known, *names.values()))
    return {fold: parts for fold, text in names.items() if (parts := words.parts(text))}


@functools.lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    """Return the words of a name without case, accents and what cannot be seen."""
    kept = []
    for c in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold()):
        kind = unicodedata.category(c)
        if unicodedata.combining(c) or kind == "Cf":
            continue
        kept.append(c if kind[0] in "LNM" else " ")
    return tuple("".join(kept).split())


def _letters(name: str) -> str:
    return "".join(_words(name))


def _is_slip(a: str, b: str) -> bool:
    longest = max(len(a), len(b))
    most = next((slips for letters, slips in SLIPS if longest >= letters), 0)
    # Each slip adds and drops one letter at most: that is seen at once of most pairs.
    if a == b or not most or len(set(a) ^ set(b)) > 2 * most:
        return a == b
    return edit_distance(a, b, at_most=most) <= most or _is_swap(a, b)


def _is_swap(a: str, b: str) -> bool:
    """Return whether two neighbouring letters changed places, and nothing else."""
    at = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    return len(a) == len(b) and len(at) == 2 and at[1] == at[0] + 1 and a[at[0]] + a[at[1]] == b[at[1]] + b[at[0]]
