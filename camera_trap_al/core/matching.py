"""Path and label text of a row → a known image, a known class, or why not. Compares texts, never opens a path."""

from __future__ import annotations

import difflib
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from camera_trap_al.core.records import UNLABELLED, ImageKey

MAX_NAME_CHARACTERS = 300
SHOWN_CHARACTERS = 200
_ABSOLUTE = re.compile(r"[/~]|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.\-]*:/")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BETWEEN_CLASSES = re.compile(r"[,;/|&+\n]| and ")
_LOOK_THROUGH = 500  # names compared one by one for a suggestion; in a larger folder its neighbours by name
_CACHED_FOLDERS = 100_000


def nfc(text: str) -> str:
    """Return `text` in Unicode normal form C."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Return `text` trimmed and without upper case, for comparing."""
    return nfc(nfc(text).strip().casefold())


def has_control(text: str) -> bool:
    """Return whether `text` holds a NUL, a line break or another control character."""
    return not text.isprintable() and _CONTROL.search(text) is not None


def shown(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """Return `text` for a person: at most `limit` characters, those that cannot be seen escaped."""
    cut = text[:limit] + "…" if len(text) > limit else text
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def normal_key(relative_path: str, file: str) -> ImageKey | None:
    r"""Return the key that a row names, or None for a path that cannot be below the image root.

    `\` becomes `/`; `.` segments, double and outer separators go; `..` is followed as text. An absolute path, a drive,
    a network name, a URL, `~` and a `..` that leaves the root give None.
    """
    file = file.replace("\\", "/")
    path = f"{relative_path}/{file}".replace("\\", "/") if relative_path else file
    if _ABSOLUTE.match(path) or (_ABSOLUTE.match(file) and not file.startswith(("/", "~"))):
        return None
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if not segments:
                return None
            segments.pop()
        elif segment not in ("", "."):
            segments.append(segment)
    return ImageKey("/".join(segments[:-1]), segments[-1]) if segments else None


class Match(NamedTuple):
    """The image that a row names, or a rejection `code` and the key that the row `named`, if its path can be used.

    `note` is "case" or "path_in_file" if the image was found so.
    """

    key: ImageKey | None
    code: str = ""
    note: str = ""
    named: ImageKey | None = None


class KnownImages:
    """The images that a label file may name, by folder and name.

    Takes about 100 bytes an image, its name included.

    Parameters
    ----------
    keys : every image of the pool, in any order; also those that are missing or quarantined now
    aliases : "from=to" texts: a path that starts with the folder `from` (absolute, or relative to the image root) is
        read as if it started with `to` instead; an empty `from` puts `to` before every path
    """

    def __init__(self, keys: Iterable[ImageKey], aliases: Iterable[str] = ()) -> None:
        self._names: dict[str, dict[str, str]] = {}
        for folder, name in keys:
            self._names.setdefault(folder, {})[name] = name
        pairs = (alias.replace("\\", "/").rpartition("=") for alias in aliases)
        self._aliases = sorted(((a.rstrip("/"), b.strip("/")) for a, _, b in pairs), key=lambda p: (-len(p[0]), p))
        self._clean = {folder: folder for folder in self._names}
        self._folders_by_fold: dict[str, list[str]] = {}
        self._names_by_fold: dict[str, dict[str, str]] = {}
        self._sorted_folders: list[str] = []
        self._sorted_names: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._names.values()))

    def __contains__(self, key: ImageKey) -> bool:
        return key.file in self._names.get(key.relative_path, {})

    def folders(self) -> Iterable[str]:
        """Return the folders that hold images."""
        return self._names

    def knows(self, relative_path: str, file: str) -> bool:
        """Return whether `match` finds the image."""
        return self.match(relative_path, file).key is not None

    def match(self, relative_path: str, file: str) -> Match:
        """Return the image that a row's two cells (trimmed) name.

        Tried in this order: as written, equal in Unicode normal form C, equal but for upper and lower case if only one
        image is. Codes: `bad_path`, `unknown_image`, `ambiguous_image`.
        """
        folder = self._clean.get(relative_path)
        if folder is not None and (name := self._names[folder].get(file)) is not None:
            return Match(ImageKey(folder, name))
        return self._match_slowly(relative_path, file)

    def normal_key(self, relative_path: str, file: str) -> ImageKey | None:
        """Return the key that a row names, aliases applied, or None for a path that cannot be below the root."""
        path = (f"{relative_path}/{file}" if relative_path else file).replace("\\", "/")
        for old, new in self._aliases:
            if old and folded(path[: len(old) + 1]) == folded(old + "/"):
                return normal_key(new, path[len(old) :].lstrip("/"))
        key = normal_key(relative_path, file)
        if key is None or not self._aliases or self._aliases[-1][0]:
            return key
        return normal_key(self._aliases[-1][1], key.path)

    def nearest(self, key: ImageKey) -> str:
        """Return the path of the known image that looks most like `key`, or ""."""
        if key.relative_path in self._names:
            name = self._nearest_name(key.relative_path, key.file)
            return ImageKey(key.relative_path, name).path if name else ""
        self._sorted_folders = self._sorted_folders or sorted(self._names)
        same_name = [folder for folder in self._sorted_folders if key.file in self._names[folder]]
        folder = _nearest(key.relative_path, same_name or self._sorted_folders, cutoff=0.0 if same_name else 0.6)
        name = key.file if same_name else self._nearest_name(folder, key.file)
        return ImageKey(folder, name).path if name else ""

    def _match_slowly(self, relative_path: str, file: str) -> Match:
        key = self.normal_key(relative_path, file) if file else None
        if key is None:
            return Match(None, "bad_path")
        note = "path_in_file" if "/" in file or "\\" in file else ""
        if key in self:
            if key.file == file and len(self._clean) < len(self._names) + _CACHED_FOLDERS:
                self._clean.setdefault(relative_path, key.relative_path)
            return Match(key, note=note)
        alike = self._alike(key)
        same = [image for image in alike if nfc(image.path) == nfc(key.path)]
        if len(same) == 1:
            return Match(same[0], note=note)
        if len(alike) > 1:
            return Match(None, "ambiguous_image", named=key)
        return Match(alike[0], note="case") if alike else Match(None, "unknown_image", named=key)

    def _alike(self, key: ImageKey) -> list[ImageKey]:
        if not self._folders_by_fold:
            for folder in sorted(self._names):
                self._folders_by_fold.setdefault(folded(folder), []).append(folder)
        name = folded(key.file)
        return [
            ImageKey(folder, alike)
            for folder in self._folders_by_fold.get(folded(key.relative_path), [])
            for alike in self._by_fold(folder).get(name, "").split("/")
            if alike
        ]

    def _by_fold(self, folder: str) -> dict[str, str]:
        # Names that fold alike are joined by the one character that no name has: half the memory of lists.
        if folder not in self._names_by_fold:
            by_fold: dict[str, str] = {}
            for name in sorted(self._names[folder]):
                fold = folded(name)
                by_fold[fold] = f"{by_fold[fold]}/{name}" if fold in by_fold else name
            self._names_by_fold[folder] = by_fold
        return self._names_by_fold[folder]

    def _nearest_name(self, folder: str, name: str) -> str:
        if folder not in self._names:
            return ""
        if folder not in self._sorted_names:
            self._sorted_names[folder] = sorted(self._names[folder])
        return _nearest(name, self._sorted_names[folder])


def _nearest(text: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    if len(known) > _LOOK_THROUGH:
        at = bisect_left(known, text)
        known = known[max(0, at - _LOOK_THROUGH // 2) : at + _LOOK_THROUGH // 2]
    found = difflib.get_close_matches(text[:MAX_NAME_CHARACTERS], known, n=1, cutoff=cutoff)
    return found[0] if found else ""


class RootShift:
    """Whether all paths of a file lie the same folders too deep or too high (template saved one level up or down).

    Give `add` every row whose image is unknown; the answer counts only if no row of the file had a known image.
    """

    def __init__(self, images: KnownImages) -> None:
        self._images = images
        self._extra: list[str] | None = None
        self._missing: list[str] = []

    def add(self, key: ImageKey | None) -> None:
        """Take in the key of one row; None (a path that cannot be used) ends all hope."""
        if key is None:
            self._extra, self._missing = [], []
        elif self._extra is None:
            segments = key.relative_path.split("/") if key.relative_path else []
            self._extra = [p for n in range(len(segments)) if self._is_extra(p := "/".join(segments[: n + 1]), key)]
            self._missing = [p for p in self._parents(key.relative_path) if self._is_missing(p, key)]
        else:
            self._extra = [prefix for prefix in self._extra if self._is_extra(prefix, key)]
            self._missing = [prefix for prefix in self._missing if self._is_missing(prefix, key)]

    def alias(self) -> str:
        """Return the one alias ("from=to") under which all rows are known images, or ""."""
        aliases = [f"{prefix}=" for prefix in self._extra or []] + [f"={prefix}" for prefix in self._missing]
        return aliases[0] if len(aliases) == 1 else ""

    def _is_extra(self, prefix: str, key: ImageKey) -> bool:
        path = key.path
        return path.startswith(prefix + "/") and ImageKey.of(path[len(prefix) + 1 :]) in self._images

    def _is_missing(self, prefix: str, key: ImageKey) -> bool:
        return ImageKey.of(f"{prefix}/{key.path}") in self._images

    def _parents(self, relative_path: str) -> list[str]:
        if not relative_path:
            return sorted(folder for folder in self._images.folders() if folder)
        end = "/" + relative_path
        return sorted(folder[: -len(end)] for folder in self._images.folders() if folder.endswith(end))


class ClassMatch(NamedTuple):
    """What a label cell says. `name` is the class if `kind` is "class"; `is_exact`: it was spelled just so."""

    kind: Literal["class", "skip", "unlabel", "reserved", "unknown"]
    name: str = ""
    is_exact: bool = True


class KnownClasses:
    """The class list and the words that are no classes.

    Parameters
    ----------
    names : the classes; no two may clash (see `clashing_names`)
    skip_words : words for "cannot tell"; a class called so goes first
    reserved : words that no label may be
    unlabel_token : text that takes a label back, or "" for none

    Attributes
    ----------
    words : names, skip words and reserved words
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        skip_words: Iterable[str] = ("unsure",),
        reserved: Iterable[str] = (UNLABELLED,),
        unlabel_token: str = "",
    ) -> None:
        self.names = tuple(dict.fromkeys(names))
        self.reserved = tuple(reserved)
        skip_words = tuple(skip_words)
        self.words = (*self.names, *skip_words, *self.reserved)
        self._exact = {name: ClassMatch("class", name) for name in self.names}
        self._by_name = {nfc(name).strip(): name for name in self.names}
        self._by_fold: dict[str, list[str]] = {}
        for name in self.names:
            self._by_fold.setdefault(folded(name), []).append(name)
        self._skip_words = {folded(word) for word in skip_words}
        self._reserved = {folded(word) for word in self.reserved}
        self._unlabel = nfc(unlabel_token).strip()
        self._suggested: dict[str, tuple[str, ...]] = {}

    def match(self, text: str) -> ClassMatch:
        """Return what a label cell says; `text` is not blank."""
        exact = self._exact.get(text)
        if exact is not None:
            return exact
        trimmed = nfc(text).strip()
        if trimmed in self._by_name:
            return ClassMatch("class", self._by_name[trimmed], is_exact=False)
        fold = folded(text)
        alike = self._by_fold.get(fold, [])
        if len(alike) == 1:
            return ClassMatch("class", alike[0], is_exact=False)
        if self._unlabel and trimmed == self._unlabel:
            return ClassMatch("unlabel")
        if fold in self._skip_words:
            return ClassMatch("skip")
        return ClassMatch("reserved" if fold in self._reserved else "unknown")

    def suggest(self, text: str) -> tuple[str, ...]:
        """Return up to 3 classes that `text` may mean: at most 2 letters differ, or both begin alike."""
        fold = folded(text[: MAX_NAME_CHARACTERS + 1])
        if len(fold) > MAX_NAME_CHARACTERS:
            return ()
        if fold not in self._suggested:
            ranked = sorted((rank, name) for name in self.names if (rank := _likeness(fold, folded(name))) is not None)
            self._suggested[fold] = tuple(name for _, name in ranked[:3])
        return self._suggested[fold]

    def parts(self, text: str) -> tuple[str, ...]:
        """Return the classes that `text` joins, if it is two or more of them with `,`, `;`, `/`, "and" … between."""
        if len(text) > MAX_NAME_CHARACTERS:
            return ()
        matches = [self.match(part) for part in _BETWEEN_CLASSES.split(text) if part.strip()]
        names = dict.fromkeys(match.name for match in matches if match.kind == "class")
        return tuple(names) if len(names) > 1 and all(match.kind == "class" for match in matches) else ()


def _likeness(a: str, b: str) -> tuple[int, int] | None:
    distance = edit_distance(a, b, at_most=2)
    common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if distance <= 2 and distance < min(len(a), len(b)):
        return distance, -common
    return (3, -common) if common >= 4 or common >= max(3, min(len(a), len(b))) else None


def edit_distance(a: str, b: str, *, at_most: int) -> int:
    """Return how many letters to change, add or drop turn `a` into `b`; `at_most + 1` if more than `at_most`.

    Source: Levenshtein 1966, with the rows of Wagner and Fischer 1974.
    """
    if abs(len(a) - len(b)) > at_most:
        return at_most + 1
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
        if min(row) > at_most:
            return at_most + 1
    return min(row[-1], at_most + 1)


def class_name_problem(name: str, reserved: Iterable[str] = (UNLABELLED,)) -> str | None:
    """Return why `name` cannot be a class ("is empty", …; put the name before it), or None if it can."""
    if not name.strip():
        return "is empty"
    if len(name) > MAX_NAME_CHARACTERS:
        return f"is longer than {MAX_NAME_CHARACTERS} characters"
    if has_control(name):
        return "holds a line break or a control character"
    if "\ufffd" in name:
        return "holds a character that could not be read"
    if folded(name) in {folded(word) for word in reserved}:
        return "is a reserved word"
    return None


def clashing_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of class names that differ only in upper and lower case, outer blanks or Unicode form."""
    seen: dict[str, str] = {}
    clashes = []
    for name in dict.fromkeys(names):
        first = seen.setdefault(folded(name), name)
        if first != name:
            clashes.append((first, name))
    return clashes
