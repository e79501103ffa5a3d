"""What a scan saw of images and what a shard says of them, as changes of the tables, in the caller's transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, case, func, literal, or_, select, text, update

from camera_trap_al.catalog import detections
from camera_trap_al.catalog.found import POOL, Found, Seen
from camera_trap_al.catalog.schema import images, items, labels, marks, parts, rows_of
from camera_trap_al.core.history import LASTING_SKIPS
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash

MISSING_AFTER_SCANS = 3
MISSING_AFTER_S = 600.0
AWAY_FRACTION = 0.2
TRANSIENT_PROBLEMS = frozenset({"missing", "no_permission"})
"""Problems of reaching a file rather than of what is in it: tried again at each scan."""
QUARANTINED_AFTER_TRIES = 3
ROWS_AT_ONCE = 200
_NOTHING_KNOWN: Mapping[str, Any] = {
    "problem": "",
    "problem_text": "",
    "problem_since": "",
    "tries": 0,
    "hash": "",
    "taken": None,
}

QUARANTINED = (
    f"problem != '' AND (problem NOT IN {tuple(sorted(TRANSIENT_PROBLEMS))} OR tries >= {QUARANTINED_AFTER_TRIES})"
)
"""What is true of an image that is given up until its file changes."""

is_quarantined = text(f"({QUARANTINED})")

Answer = tuple[str | None, str | None, int]
"""Species or None, reason of a skip or None, journal seq."""


class _Change(Enum):
    NOTHING = auto()
    UNREAD = auto()
    TIME = auto()
    RETRY = auto()
    CONTENT = auto()


class Taken(NamedTuple):
    """What came of files that a scan saw: how many images are new or changed, and whose content must be read to say."""

    n_changed: int
    unread: list[Found]


def take_found(connection: Connection, root: str, found: Sequence[Found], scan: int, seen: Seen) -> Taken:
    """Take in files of a folder that scan number `scan` saw, at most `BATCH`. Writes nothing of those that are as before."""
    known = {row.path: row for row in _known(connection, root, [f.path for f in found])}
    new: list[Found] = []
    returned: list[int] = []
    n_back = 0
    relisted: list[dict[str, Any]] = []
    changes: dict[_Change, list[tuple[int, Found]]] = {change: [] for change in _Change}
    for f in found:
        row = known.get(f.path)
        if row is None:
            new.append(f)
            continue
        seen.add(row.id)
        if row.missed or row.missing:
            returned.append(row.id)
            n_back += row.missing
        if row.listed != f.listed:
            relisted.append({"image": row.id, "new_listed": f.listed})
        change = _change_of(row, f)
        if change is not _Change.NOTHING:
            changes[change].append((row.id, f))
    if returned:
        statement = update(images).where(images.c.id.in_(returned))
        connection.execute(statement.values(missed=0, missing=False, away_s=0.0))
    _add(connection, root, new, scan, seen)
    _note_times(connection, changes[_Change.TIME])
    _renew(connection, changes[_Change.RETRY] + changes[_Change.CONTENT])
    flag_altered(connection, [image for image, _ in changes[_Change.CONTENT]])
    if relisted:
        statement = update(images).where(images.c.id == bindparam("image")).values(listed=bindparam("new_listed"))
        connection.execute(statement, relisted)
    n_changed = len(new) + n_back + len(relisted) + len(changes[_Change.RETRY]) + len(changes[_Change.CONTENT])
    return Taken(n_changed, [f for _, f in changes[_Change.UNREAD]])


class _Known(NamedTuple):
    """What the catalogue knows of an image that a scan saw."""

    path: str
    id: int
    size: int
    mtime_ns: int
    listed: int
    missing: int
    missed: int
    problem: str
    hash: str


def _known(connection: Connection, root: str, paths: Sequence[str]) -> list[_Known]:
    # In the driver's own words: a scan asks this of each image, which otherwise takes longer than finding them.
    query = f"SELECT {', '.join(_Known._fields)} FROM images WHERE root = ? AND path IN {marks(paths)}"
    return [_Known(*row) for row in rows_of(connection, query, root, *paths)]


def _change_of(row: Any, f: Found) -> _Change:
    if row.size != f.size:
        return _Change.CONTENT
    if row.problem in TRANSIENT_PROBLEMS:
        return _Change.RETRY if f.content else _Change.UNREAD
    if row.mtime_ns == f.mtime_ns:
        return _Change.NOTHING
    if not row.hash:
        # Nothing is known of the content; a new row costs nothing, and an embedding under way counts for the old one.
        return _Change.RETRY
    if not f.content:
        return _Change.UNREAD
    return _Change.TIME if f.content == row.hash else _Change.CONTENT


def _add(connection: Connection, root: str, found: Sequence[Found], scan: int, seen: Seen) -> None:
    if not found:
        return
    first = 1 + (connection.scalar(select(func.max(images.c.id))) or 0)
    columns = ("id", "root", "path", "size", "mtime_ns", "class_name", "listed", "key_hash", "seen", "missed")
    nothing = tuple(_NOTHING_KNOWN.values())
    values = [
        (i, root, f.path, f.size, f.mtime_ns, f.class_name, f.listed, key_hash(f.path), scan, 0, *nothing)
        for i, f in enumerate(found, first)
    ]
    names = (*columns, *_NOTHING_KNOWN)
    connection.exec_driver_sql(f"INSERT INTO images ({', '.join(names)}) VALUES {marks(names)}", values)
    numbers = range(first, first + len(found))
    detections.add_items(connection, root, {image: f.path for image, f in zip(numbers, found, strict=True)})
    for image in numbers:
        seen.add(image)


def _note_times(connection: Connection, moved: Sequence[tuple[int, Found]]) -> None:
    if moved:
        statement = update(images).where(images.c.id == bindparam("image")).values(mtime_ns=bindparam("new_time"))
        connection.execute(statement, [{"image": image, "new_time": f.mtime_ns} for image, f in moved])


def _renew(connection: Connection, changed: Sequence[tuple[int, Found]]) -> None:
    if changed:
        statement = update(images).where(images.c.id == bindparam("image"))
        statement = statement.values(size=bindparam("new_size"), mtime_ns=bindparam("new_time"))
        values = [{"image": image, "new_size": f.size, "new_time": f.mtime_ns} for image, f in changed]
        connection.execute(statement, values)
        give_new_rows(connection, [image for image, _ in changed])


def take_answers(connection: Connection, answers: Sequence[tuple[ImageKey, Answer]]) -> None:
    """Take in what was said of pool images, at most `BATCH`; who answers has seen a content that changed."""
    kept = {key.path: answer for key, answer in answers if answer[0] is not None or answer[1] in LASTING_SKIPS}
    paths = [key.path for key, _ in answers]
    gone = sorted(set(paths) - kept.keys())
    if gone:
        connection.exec_driver_sql(f"DELETE FROM labels WHERE path IN {marks(gone)}", tuple(gone))
    reviewed = f"UPDATE images SET altered_since = '' WHERE root = ? AND path IN {marks(paths)} AND altered_since != ''"
    connection.exec_driver_sql(reviewed, (POOL, *paths))
    rows = iter(kept.items())
    # Many rows in one statement take half the time of a statement for each.
    while part := [value for path, answer in islice(rows, ROWS_AT_ONCE) for value in (path, *answer)]:
        connection.exec_driver_sql(
            f"INSERT INTO labels (path, species, skip, seq) VALUES {', '.join(['(?, ?, ?, ?)'] * (len(part) // 4))}"
            " ON CONFLICT (path) DO UPDATE SET species = excluded.species, skip = excluded.skip, seq = excluded.seq",
            tuple(part),
        )


def give_new_rows(connection: Connection, ids: Sequence[int]) -> None:
    """Give images new rows, and forget what is known of their content; at most `BATCH`.

    What a detector saw stays: better an image that is kept back for nothing than one with people that is shown.
    """
    connection.execute(update(images).where(images.c.id.in_(ids)).values(**_NOTHING_KNOWN))
    detections.renew_items(connection, ids)


def flag_altered(connection: Connection, ids: Sequence[int]) -> None:
    """Flag those of the images that have a label: a person should look whether it still fits."""
    if not ids:
        return
    labelled = select(labels.c.path).where(labels.c.species.is_not(None), labels.c.path == images.c.path).exists()
    statement = update(images).where(images.c.id.in_(ids), images.c.root == POOL, labelled)
    connection.execute(statement.values(altered_since=_now()))


def keep_unseen(connection: Connection, root: str, path: str, seen: Seen) -> None:
    """Let images that a scan could not look for count as seen.

    Parameters
    ----------
    path : an image; what may be an image, or all images below a folder, if it ends in `/`; all of the root if it is ""
    """
    here = [images.c.root == root]
    if path.endswith("/"):
        below = and_(images.c.path >= path, images.c.path < path[:-1] + "0")  # "0" comes after "/"
        here.append(or_(below, images.c.path == path[:-1]))
    elif path:
        here.append(images.c.path == path)
    for image in connection.scalars(select(images.c.id).where(*here)):
        seen.add(image)


def note_failed_tries(connection: Connection, root: str, paths: Sequence[str]) -> int:
    """Count one more try of images that still cannot be reached; return how many are quarantined by it."""
    n = 0
    for part in parts(paths):
        here = and_(images.c.root == root, images.c.path.in_(part), images.c.problem.in_(TRANSIENT_PROBLEMS))
        connection.execute(update(images).where(here).values(tries=images.c.tries + 1))
        due = and_(here, images.c.tries == QUARANTINED_AFTER_TRIES)
        n += connection.scalar(select(func.count()).select_from(images).where(due)) or 0
    return n


def count_missed(
    connection: Connection, root: str, seen: Seen, elapsed_s: float, *, accept: bool = False
) -> tuple[float, bool]:
    """Count the images of a folder that a scan did not see, unless so many are away that the folder must be.

    Parameters
    ----------
    elapsed_s : seconds since the scan before
    accept : a person said that what is not there is gone for good, so it is given up at once, unless all is away

    Returns
    -------
    the fraction of known, present images that were not seen, 0 where it says nothing of the folder; whether images were
    given up
    """
    present = "SELECT id FROM images WHERE root = ? AND NOT missing"
    known = [image for (image,) in rows_of(connection, present, root)]
    n_known, unseen = len(known), [image for image in known if image not in seen]
    if not unseen:
        return 0.0, False
    if len(unseen) == n_known or len(unseen) > max(1, AWAY_FRACTION * n_known) and not accept:
        return len(unseen) / n_known, False
    n_lost = 0
    for part in parts(unseen):
        here = images.c.id.in_(part)
        if accept:
            connection.execute(update(images).where(here).values(missed=MISSING_AFTER_SCANS, missing=True))
            continue
        away_s = case((images.c.missed == 0, literal(0.0)), else_=images.c.away_s + elapsed_s)
        connection.execute(update(images).where(here).values(missed=images.c.missed + 1, away_s=away_s))
        lost = and_(here, images.c.missed >= MISSING_AFTER_SCANS, images.c.away_s >= MISSING_AFTER_S)
        n_lost += connection.execute(update(images).where(lost).values(missing=True)).rowcount
    return 0.0, accept or n_lost > 0


def give_up(connection: Connection, paths: Sequence[str]) -> None:
    """Let pool images count as missing until a scan sees them again."""
    for part in parts(paths):
        here = and_(images.c.root == POOL, images.c.path.in_(part))
        connection.execute(update(images).where(here).values(missed=MISSING_AFTER_SCANS, missing=True))


def take_problems(connection: Connection, problems: Mapping[int, tuple[str, str]]) -> None:
    """Note which rows' images cannot be read: row → (code, text)."""
    image = select(items.c.image).where(items.c.row == bindparam("of_row"), items.c.live).scalar_subquery()
    statement = update(images).where(images.c.id == image, images.c.problem == "")
    statement = statement.values(
        problem=bindparam("code"), problem_text=bindparam("why"), problem_since=bindparam("since"), tries=1
    )
    since = _now()
    values = [
        {"of_row": row, "code": code, "why": why, "since": since} for row, (code, why) in sorted(problems.items())
    ]
    if values:
        connection.execute(statement, values)


def take_hashes(connection: Connection, hashes: Mapping[int, str]) -> int:
    """Note which contents were embedded: row → hash. Return how many images turned out to have changed since."""
    altered = 0
    query = "SELECT items.row, images.id, hash FROM items JOIN images ON images.id = items.image WHERE live AND items.row IN "
    for rows in parts(sorted(hashes)):
        known = list(rows_of(connection, query + marks(rows), *rows))
        first = [(hashes[row], image) for row, image, content in known if not content]
        if first:
            connection.exec_driver_sql("UPDATE images SET hash = ? WHERE id = ?", first)
        changed = list(dict.fromkeys(i for row, i, content in known if content and content != hashes[row]))
        if changed:
            give_new_rows(connection, changed)
            flag_altered(connection, changed)
        altered += len(changed)
    return altered


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
