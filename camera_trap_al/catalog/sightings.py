"""What a scan saw of images and what a shard says of them, as changes of the tables, in the caller's transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, case, func, insert, literal, or_, select, update

from camera_trap_al.catalog.found import POOL, Found, key_hash
from camera_trap_al.catalog.schema import images, items, labels

MISSING_AFTER_SCANS = 3
MISSING_AFTER_S = 600.0
AWAY_FRACTION = 0.2
TRANSIENT_PROBLEMS = frozenset({"missing", "no_permission"})
"""Problems of reaching a file rather than of what is in it: tried again at each scan."""
QUARANTINED_AFTER_TRIES = 3
BATCH = 500

is_present = ~images.c.missing
is_quarantined = and_(
    images.c.problem != "",
    or_(images.c.problem.not_in(TRANSIENT_PROBLEMS), images.c.tries >= QUARANTINED_AFTER_TRIES),
)


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


def take_found(connection: Connection, root: str, found: Sequence[Found], scan: int) -> Taken:
    """Take in files of a folder that scan number `scan` saw, at most `BATCH`."""
    columns = ("id", "path", "size", "mtime_ns", "listed", "missing", "problem", "hash")
    query = select(*(images.c[name] for name in columns))
    query = query.where(images.c.root == root, images.c.path.in_([f.path for f in found]))
    known = {row.path: row for row in connection.execute(query)}
    new = [f for f in found if f.path not in known]
    old = [(known[f.path], f) for f in found if f.path in known]
    changes: dict[_Change, list[tuple[int, Found]]] = {change: [] for change in _Change}
    for row, f in old:
        changes[_change_of(row, f)].append((row.id, f))
    back = sum(row.missing for row, _ in old)
    relisted = [(row.id, f) for row, f in old if row.listed != f.listed]
    ids = [row.id for row, _ in old]
    connection.execute(
        update(images).where(images.c.id.in_(ids)).values(seen=scan, missed=0, missing=False, away_s=0.0)
    )
    _add(connection, root, new, scan)
    _note_times(connection, changes[_Change.TIME])
    _renew(connection, changes[_Change.RETRY] + changes[_Change.CONTENT])
    flag_altered(connection, [image for image, _ in changes[_Change.CONTENT]])
    if relisted:
        statement = update(images).where(images.c.id == bindparam("image")).values(listed=bindparam("new_listed"))
        connection.execute(statement, [{"image": image, "new_listed": f.listed} for image, f in relisted])
    n_changed = len(new) + back + len(relisted) + len(changes[_Change.RETRY]) + len(changes[_Change.CONTENT])
    return Taken(n_changed, [f for _, f in changes[_Change.UNREAD]])


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


def _add(connection: Connection, root: str, found: Sequence[Found], scan: int) -> None:
    if not found:
        return
    connection.execute(insert(images), [_image_values(root, f, scan) for f in found])
    fresh = select(images.c.id).where(images.c.root == root, images.c.path.in_([f.path for f in found]))
    ids = list(connection.scalars(fresh.order_by(images.c.path)))
    connection.execute(insert(items), [{"image": i, "live": True} for i in ids])


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


def give_new_rows(connection: Connection, ids: Sequence[int]) -> None:
    """Give images new rows, and forget what is known of their content; at most `BATCH`."""
    nothing = {"problem": "", "problem_text": "", "problem_since": "", "tries": 0, "hash": ""}
    connection.execute(update(images).where(images.c.id.in_(ids)).values(**nothing))
    connection.execute(update(items).where(items.c.image.in_(ids)).values(live=False))
    connection.execute(insert(items), [{"image": image, "live": True} for image in ids])


def flag_altered(connection: Connection, ids: Sequence[int]) -> None:
    """Flag those of the images that have a label: a person should look whether it still fits."""
    if not ids:
        return
    labelled = select(labels.c.path).where(labels.c.species.is_not(None), labels.c.path == images.c.path).exists()
    statement = update(images).where(images.c.id.in_(ids), images.c.root == POOL, labelled)
    connection.execute(statement.values(altered_since=_now()))


def keep_unseen(connection: Connection, root: str, path: str, scan: int) -> None:
    """Let images that scan number `scan` could not look for count as seen.

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
    connection.execute(update(images).where(*here).values(seen=scan))


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
    connection: Connection, root: str, scan: int, elapsed_s: float, *, accept: bool = False
) -> tuple[float, bool]:
    """Count the images of a folder that scan number `scan` did not see, unless so many are away that the folder must be.

    Parameters
    ----------
    elapsed_s : seconds since the scan before
    accept : a person said that what is not there is gone for good, so it is given up at once, unless all is away

    Returns
    -------
    the fraction of known, present images that were not seen, 0 where it says nothing of the folder; whether images were
    given up
    """
    here = and_(images.c.root == root, is_present)
    unseen = and_(here, images.c.seen < scan)
    n_known = connection.scalar(select(func.count()).select_from(images).where(here)) or 0
    n_unseen = connection.scalar(select(func.count()).select_from(images).where(unseen)) or 0
    if n_unseen == 0:
        return 0.0, False
    if n_unseen == n_known or n_unseen > max(1, AWAY_FRACTION * n_known) and not accept:
        return n_unseen / n_known, False
    if accept:
        connection.execute(update(images).where(unseen).values(missed=MISSING_AFTER_SCANS, missing=True))
        return 0.0, True
    away_s = case((images.c.missed == 0, literal(0.0)), else_=images.c.away_s + elapsed_s)
    connection.execute(update(images).where(unseen).values(missed=images.c.missed + 1, away_s=away_s))
    lost = and_(unseen, images.c.missed >= MISSING_AFTER_SCANS, images.c.away_s >= MISSING_AFTER_S)
    return 0.0, connection.execute(update(images).where(lost).values(missing=True)).rowcount > 0


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
    query = select(items.c.row, images.c.id, images.c.hash).join(images, images.c.id == items.c.image)
    for rows in parts(sorted(hashes)):
        known = connection.execute(query.where(items.c.row.in_(rows), items.c.live)).all()
        first = [{"image": image, "content": hashes[row]} for row, image, content in known if not content]
        if first:
            statement = update(images).where(images.c.id == bindparam("image")).values(hash=bindparam("content"))
            connection.execute(statement, first)
        changed = [image for row, image, content in known if content and content != hashes[row]]
        if changed:
            give_new_rows(connection, changed)
            flag_altered(connection, changed)
        altered += len(changed)
    return altered


def parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut values into parts of at most `BATCH`."""
    listed = list(values)
    for start in range(0, len(listed), BATCH):
        yield listed[start : start + BATCH]


def _image_values(root: str, f: Found, scan: int) -> dict[str, Any]:
    return {
        "root": root,
        "path": f.path,
        "size": f.size,
        "mtime_ns": f.mtime_ns,
        "class_name": f.class_name,
        "listed": f.listed,
        "key_hash": key_hash(f.path),
        "seen": scan,
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
