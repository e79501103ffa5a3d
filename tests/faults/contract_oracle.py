"""What a label file means, written a second time from docs/reliability.md alone: slow, obvious, sharing no code.

`judge(data, world)` reads the whole file into memory and returns what may be answered. It gives room where the page
leaves room, and only there:

- a row with two faults may be reported for either; a row without a label, or of an image never asked for, may be
  reported or passed over; a repeated fault may be listed once a row or once an image;
- with CR as the only line end, or with rows that all look shifted by a folder: taken or refused, but as a whole;
- of what MAY be accepted, a whole path in `File` is and a file without `RelativePath` is not;
- one image with a label and a skip word (or unlabel word, or confirmation of another class): either of them;
- a skip for an image that is labelled already: noted or not, the label stays;
- a file whose rows are all passed over, or whose only faults are of images never asked for: any verdict but
  `incomplete`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from contract_text import Refused, decoded, has_control, table_of

Key = tuple[str, str]
Outcome = tuple[str, ...]

CANNOT_TELL, WITHDRAWN, SEVERAL, NEW_NAME = "cannot_tell", "withdrawn", "several_species", "new_name"
NOTHING: Outcome = ("none",)
LONGEST_NAME = 300
NO_FOLDER = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class World:
    """What is known when a label file comes: images, classes, requests, labels, predictions, settings."""

    pool: frozenset[Key]
    classes: tuple[str, ...]
    requested: frozenset[Key]
    held: frozenset[str] = frozenset()
    labels: Mapping[Key, str] = field(default_factory=dict)
    published: Mapping[Key, frozenset[str]] = field(default_factory=dict)
    column: str = "Species"
    skip_words: tuple[str, ...] = ("unsure",)
    reserved: tuple[str, ...] = ("unlabelled",)
    unlabel_token: str = ""
    unrequested: str = "ignore"
    auto_add: bool = False
    auto_add_min: int = 3
    path_alias: tuple[tuple[str, str], ...] = ()
    max_cell: int = 1 << 20


@dataclass
class Verdict:
    """What may be answered: `refused` (codes of a file that must be refused) or the outcome of each image.

    `must` and `may` give, by line, the codes that a row has to be (may be) rejected with. Images not in `images` stay
    as they are. `may_refuse` are codes under which the whole file may be refused instead.
    """

    refused: frozenset[str] = frozenset()
    may_refuse: frozenset[str] = frozenset()
    images: dict[Key, frozenset[Outcome]] = field(default_factory=dict)
    must: dict[int, frozenset[str]] = field(default_factory=dict)
    may: dict[int, frozenset[str]] = field(default_factory=dict)
    several: list[frozenset[int]] = field(default_factory=list)
    new_classes: frozenset[str] = frozenset()
    rows: int = 0


@dataclass
class Answer:
    """What the product answered. `rejected` holds (line, code); line 0 is the whole file."""

    verdict: str
    images: dict[Key, Outcome]
    rejected: list[tuple[int, str]]
    new_classes: frozenset[str] = frozenset()


@dataclass
class _Row:
    """One row and the `codes` that it may be rejected for, if any; a `quiet` one says nothing."""

    line: int
    codes: set[str] = field(default_factory=set)
    key: Key | None = None
    word: str = ""
    confirmed: bool = False
    prediction: str = ""
    deleted: bool = False
    quiet: bool = False


def differences(verdict: Verdict, answer: Answer) -> list[str]:
    """Return in words where an answer is not one that the contract allows; empty where it is."""
    found: list[str] = []
    file_codes = {code for line, code in answer.rejected if line == 0}
    if answer.verdict in ("rejected", "incomplete") and file_codes and not answer.images:
        if not file_codes & (verdict.refused | verdict.may_refuse):
            found.append(f"refused for {file_codes}, expected {set(verdict.refused) or 'rows to be taken'}")
        if answer.verdict == "incomplete" and not file_codes & {"incomplete", "open_quote"}:
            found.append("incomplete for another reason")
        return found
    if verdict.refused:
        return [f"not refused, expected one of {set(verdict.refused)}"]
    for key in {*verdict.images, *answer.images}:
        got, allowed = answer.images.get(key, NOTHING), verdict.images.get(key, frozenset({NOTHING}))
        if got not in allowed:
            found.append(f"{key}: {got}, allowed {sorted(allowed)}")
    codes: dict[int, set[str]] = {}
    for line, code in answer.rejected:
        codes.setdefault(line, set()).add(code)
    for line, allowed_codes in verdict.must.items():
        if not codes.get(line, set()) & allowed_codes:
            found.append(f"line {line}: rejected for {codes.get(line)}, expected one of {set(allowed_codes)}")
    for line, got_codes in codes.items():
        beyond = got_codes - verdict.must.get(line, frozenset()) - verdict.may.get(line, frozenset())
        if any(line in lines for lines in verdict.several):
            beyond -= {"several_species"}
        if beyond:
            found.append(f"line {line}: rejected for {beyond}, not allowed")
    for lines in verdict.several:
        if not any("several_species" in codes.get(line, ()) for line in lines):
            found.append(f"lines {sorted(lines)}: no several_species")
    if answer.new_classes != verdict.new_classes:
        found.append(f"new classes {set(answer.new_classes)}, expected {set(verdict.new_classes)}")
    good = any(outcome != NOTHING for outcome in answer.images.values())
    faults = set(codes) - {line for lines in verdict.several for line in lines}
    if good and answer.verdict not in ({"partial"} if faults else {"accepted", "partial"}):
        found.append(f"verdict {answer.verdict} with good rows and {len(faults)} rejected")
    if not codes and answer.verdict != "accepted":
        found.append(f"verdict {answer.verdict} with nothing rejected")
    if answer.verdict == "incomplete":
        found.append("incomplete, yet rows were judged")
    return found


def judge(data: bytes, world: World) -> Verdict:
    """Return what may be answered to a settled label file of these bytes."""
    instead: set[str] = set()
    try:
        text, instead = decoded(data)
        header, records, more = table_of(text, world.column)
    except Refused as refused:
        return Verdict(refused=refused.codes | instead)
    if "\r" in text and "\n" not in text:
        more |= {"unknown_delimiter", "missing_column", "not_text"}
    return _judge_rows(header, records, instead | more, world)


# --- cells to images and words --------------------------------------------------------------------------------


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


def _path(folder: str, file: str, world: World) -> tuple[str, bool]:
    """Return the path from the image root on, and whether it is one that can lie there."""
    folder, file = _nfc(folder).replace("\\", "/"), _nfc(file).replace("\\", "/")
    path = f"{folder}/{file}" if folder else file
    for old, new in world.path_alias:
        old = _nfc(old).replace("\\", "/").rstrip("/")
        if path.casefold().startswith(f"{old}/".casefold()) or not old:
            path = "/".join(part for part in (new, path[len(old) :].strip("/")) if part)
            break
    if path.startswith(("/", "~")) or any(map(NO_FOLDER.match, (path, file))):
        return path, False
    kept: list[str] = []
    for part in path.split("/"):
        if part == ".." and not kept:
            return path, False
        if part == "..":
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return "/".join(kept), True


def _known(path: str, world: World) -> tuple[Key | None, str]:
    by_path = {f"{folder}/{file}" if folder else file: (folder, file) for folder, file in world.pool}
    if path in by_path:
        return by_path[path], ""
    for same in (_nfc, lambda name: _nfc(name).casefold()):
        hits = [key for name, key in by_path.items() if same(name) == same(path)]
        if len(hits) == 1:
            return hits[0], ""
        if hits:
            return None, "ambiguous_image"
    if path.partition("/")[0] in world.held:
        return None, "not_in_pool"
    return None, "unknown_image"


def _class(word: str, world: World) -> str | None:
    if word in world.classes:
        return word
    hits = [name for name in world.classes if _nfc(name).casefold() == word.casefold()]
    return hits[0] if len(hits) == 1 else None


def _joins(word: str, world: World) -> bool:
    parts = [part.strip() for part in re.split("[,;/|&+]| and ", word)]
    return len(parts) > 1 and all(_class(part, world) for part in parts)


def _row(line: int, cells: list[str], header: list[str], world: World) -> _Row:
    row = _Row(line)
    width = max(at for at, name in enumerate(header) if name) + 1
    if len(cells) < width:
        levels = min(header.index(name) for name in ("rootfolder", "file") if name in header)
        if {"file", "relativepath", world.column.casefold()} & set(header[:levels]):
            levels = 0
        shorter = cells
        cells = [""] * (len(header) - len(cells)) + cells
        file = _cell(cells, header, "file")
        path, inside = _path(_cell(cells, header, "relativepath"), file, world)
        if len(shorter) < len(header) - levels or not file or not inside or _known(path, world)[0] is None:
            row.codes.add("short_row")
            return row
    elif any(cell.strip() for cell in cells[len(header) :]):
        row.codes.add("extra_cells")
        return row
    needed = [_cell(cells, header, name) for name in ("file", "relativepath", world.column.casefold())]
    if any(len(cell.encode("utf-8", "replace")) > world.max_cell for cell in cells):
        row.codes.add("long_cell")
        return row
    if any(has_control(cell) for cell in needed):
        row.codes.add("control_character")
    file, folder, row.word = needed[0], needed[1], _nfc(needed[2])
    path, inside = _path(folder, file, world)
    if not inside:
        row.codes.add("bad_path")
    else:
        row.key, code = _known(path, world)
        if code:
            row.codes.add(code)
    if not file:
        row.codes |= {"unknown_image", "bad_path"}
        row.key = None
    row.deleted = _cell(cells, header, "deleteflag").casefold() == "true"
    row.confirmed = not row.word and _cell(cells, header, "confirmed").casefold() == "true"
    row.prediction = _nfc(_cell(cells, header, "prediction"))
    row.quiet = not row.word and not row.confirmed and not row.deleted
    return row


def _cell(cells: list[str], header: list[str], name: str) -> str:
    return cells[header.index(name)].strip() if name in header else ""


# --- rows to outcomes -----------------------------------------------------------------------------------------


def _judge_rows(header: list[str], records: list[tuple[int, list[str]]], instead: set[str], world: World) -> Verdict:
    verdict = Verdict(may_refuse=frozenset(instead))
    table = [_row(line, cells, header, world) for line, cells in records]
    verdict.rows = len(table)
    if any("long_cell" in row.codes for row in table):
        verdict.may_refuse |= {"long_line"}
    verdict.may_refuse |= _shifted(table, header, records, world)
    named = {(row.word, row.key) for row in table if row.key and not row.codes and _class(row.word, world) is None}
    counted = Counter(word for word, _ in named if word)
    special = {_nfc(word).casefold() for word in (*world.skip_words, *world.reserved, world.unlabel_token) if word}
    may_be = {word for word in counted if world.auto_add and len(word) <= LONGEST_NAME}
    may_be = {word for word in may_be if word.casefold() not in special and not _joins(word, world)}
    may_be = {word for word in may_be if any(c.isalnum() for c in word)}
    verdict.new_classes = frozenset(
        word
        for word in may_be
        if counted[word] >= world.auto_add_min
        and not any(_alike(word, name) for name in (*world.classes, *world.skip_words, *world.reserved))
    )
    told: dict[Key, list[tuple[int, Outcome]]] = {}
    waits: dict[Key, set[str]] = {}
    for row in table:
        outcome = _meaning(row, verdict.new_classes, world)
        asked = row.key is not None and (row.key in world.requested or world.unrequested == "accept")
        if row.codes == {"unknown_species"} and row.word in may_be:
            row.codes = {NEW_NAME}
            if row.key is not None and asked:
                waits.setdefault(row.key, set()).add(row.word)
        codes = frozenset(row.codes)
        if codes and (row.quiet or (row.key is not None and not asked)):
            verdict.may[row.line] = codes
        elif codes:
            verdict.must[row.line] = codes
        elif outcome is not None and row.key is not None and asked:
            told.setdefault(row.key, []).append((row.line, outcome))
    for key, said in told.items():
        _settle(verdict, key, said, world)
    for key, words in waits.items():
        if len(words) == 1 and key not in told and key not in world.labels:
            verdict.images[key] = frozenset({("skip", NEW_NAME)})
    return verdict


def _alike(one: str, other: str) -> bool:
    """Return whether two words may be one in two spellings."""
    words = []
    for name in (one, other):
        letters = (c for c in unicodedata.normalize("NFKD", name).casefold() if not unicodedata.combining(c))
        words.append("".join(c if c.isalnum() else " " for c in letters if c != "\u200b").split())
    if "".join(words[0]) == "".join(words[1]):
        return True
    if [re.findall(r"\d+", "".join(w)) for w in words[:1]] != [re.findall(r"\d+", "".join(w)) for w in words[1:]]:
        return False
    pairs = list(zip(*words, strict=False))
    allowed = [2 if max(map(len, pair)) >= 8 else 1 if max(map(len, pair)) >= 4 else 0 for pair in pairs]
    return len(words[0]) == len(words[1]) and all(_distance(*pair) <= n for pair, n in zip(pairs, allowed, strict=True))


def _distance(a: str, b: str) -> int:
    """Return how many letters to change, add or drop make one word the other."""
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return _distance(a[1:], b[1:])
    if abs(len(a) - len(b)) > 2:
        return 3
    return 1 + min(_distance(a[1:], b), _distance(a, b[1:]), _distance(a[1:], b[1:]))


def _meaning(row: _Row, new_classes: frozenset[str], world: World) -> Outcome | None:
    """Return what a row says of its image; adds the code to a row that says nothing usable."""
    if row.codes or row.key is None:
        return None
    folded = row.word.casefold()
    species = _class(row.word, world)
    if species is None and row.word in new_classes:
        species = row.word
    if species is not None:
        return ("label", species, "oracle")
    if row.word and world.unlabel_token and folded == _nfc(world.unlabel_token).casefold():
        return ("unlabel",)
    if row.word and folded in {_nfc(word).casefold() for word in world.skip_words}:
        return ("skip", CANNOT_TELL)
    if row.word:
        reserved = folded in {_nfc(word).casefold() for word in world.reserved}
        row.codes.add("reserved_word" if reserved else "unknown_species")
        return None
    if row.confirmed:
        species = _class(row.prediction, world)
        there = world.labels.get(row.key)
        if species in world.published.get(row.key, ()) and there in (None, species):
            return ("label", str(species), "confirmed")
        row.codes.add("stale_confirmation")
    return ("skip", WITHDRAWN) if row.deleted and not row.codes else None


def _settle(verdict: Verdict, key: Key, said: list[tuple[int, Outcome]], world: World) -> None:
    there = world.labels.get(key)
    outcomes = {outcome for _, outcome in said}
    species = {outcome[1] for outcome in outcomes if outcome[0] == "label"}
    by_person = {outcome[1] for outcome in outcomes if outcome[0] == "label" and outcome[2] == "oracle"}
    allowed = set(outcomes)
    if ("skip", WITHDRAWN) in outcomes and species:
        allowed.discard(("skip", WITHDRAWN))
    if len(species) > 1:
        allowed -= {outcome for outcome in outcomes if outcome[0] == "label"}
        allowed.add(("skip", SEVERAL))
        lines = frozenset(line for line, outcome in said if outcome[0] == "label")
        if len(by_person) < 2:
            allowed |= {("label", name, "oracle") for name in by_person}
            verdict.may.update({line: frozenset({"several_species", "stale_confirmation"}) for line in lines})
        else:
            verdict.several.append(lines)
    if there is not None:
        if there in species and len(species) == 1:
            allowed = {outcome for outcome in allowed if outcome[0] != "label"} | {NOTHING}
        if any(outcome[0] == "skip" for outcome in allowed):
            allowed.add(NOTHING)
    elif ("unlabel",) in outcomes:
        allowed.add(NOTHING)
    verdict.images[key] = frozenset(allowed)


def _shifted(
    table: list[_Row], header: list[str], records: list[tuple[int, list[str]]], world: World
) -> frozenset[str]:
    """Return `shifted_root` if no row names an image and one leading folder more or less would help."""
    rows = [row for row in table if not row.codes & {"short_row", "extra_cells", "control_character", "long_cell"}]
    if any(row.key for row in rows):
        return frozenset()
    cells_of = dict(records)
    paths = []
    for row in rows:
        cells = cells_of[row.line]
        paths.append(_path(_cell(cells, header, "relativepath"), _cell(cells, header, "file"), world)[0])
    cut = [path.partition("/")[2] for path in paths]
    tops = {folder.split("/")[0] for folder, _ in world.pool}
    helped = [path for path in cut if path and _known(path, world)[0]]
    helped += [path for path in paths for top in tops if _known(f"{top}/{path}", world)[0]]
    return frozenset({"shifted_root"}) if helped else frozenset()
