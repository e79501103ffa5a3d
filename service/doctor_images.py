"""Checks of the folders of images: what is there, what Timelapse cannot show, names, classes, overlap."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.core.matching import clashing_names, class_name_problem, folded
from camera_trap_al.errors import ImageUnreadableError
from camera_trap_al.images import hash_file
from camera_trap_al_service.findings import MOST_TWINS, Case, Finding, Seen, note, ok, problem

FOLDERS = {POOL: "images to label", TRAIN: "training images", VALIDATION: "validation images"}
SHOWN_NAMES = 3
READ_BYTES = 4096


def check_images(case: Case) -> list[Finding]:
    """There are images, and they can be read."""
    found = []
    for kind, name in FOLDERS.items():
        seen = case.seen.get(kind)
        if seen is None:
            continue
        if seen.error:
            text = f"{seen.folder} cannot be looked through: {seen.error}."
            fix = f"or name its new place: camera-trap-al relocate WORK --{_option(kind)} FOLDER"
            found.append(problem(text, f"Connect its disk or share and let this user read it, {fix}"))
        elif not seen.n_images:
            fix = f"Put them there, or name their folder: camera-trap-al relocate WORK --{_option(kind)} FOLDER"
            found.append(problem(f"there is no image in {seen.folder} ({name}).", fix))
        else:
            found.append(_of_one_folder(seen, name))
            found += _beside_images(seen)
    return found


def _option(kind: str) -> str:
    return "unlabelled" if kind == POOL else kind


def _of_one_folder(seen: Seen, name: str) -> Finding:
    path = seen.folder / Path(*seen.example.split("/"))
    try:
        with path.open("rb") as file:
            file.read(READ_BYTES)
    except OSError as error:
        text = f"{seen.n_images} {name}, but {seen.example} cannot be read: {error.strerror or error}."
        return problem(text, f"Let this user read the files in {seen.folder}.")
    return ok(f"{seen.n_images} {name} in {seen.folder}")


def _beside_images(seen: Seen) -> list[Finding]:
    """Say what was passed over, and why."""
    found, counts = [], seen.tally.counts
    if seen.n_empty:
        text = f"{seen.n_empty} files in {seen.folder} are empty (0 bytes); they are never asked for."
        found.append(note(text, "Copy them again from the camera's card, if it still has them."))
    if counts["top"]:
        text = f"{counts['top']} images lie directly in {seen.folder} ({_examples(seen, 'top')}) and are ignored."
        found.append(note(text, "Move each into the folder of its class."))
    if counts["top of pool"]:
        text = f"{counts['top of pool']} images lie directly in {seen.folder} and are left out (selector.top_images)."
        found.append(
            note(text, "Put them into a sub-folder, or set top_images = true under [selector] in config.toml.")
        )
    if counts["no access"]:
        text = (
            f"{counts['no access']} files or folders in {seen.folder} cannot be read ({_examples(seen, 'no access')})."
        )
        found.append(problem(text, "Let this user read them."))
    if counts["link"]:
        text = f"{counts['link']} links in {seen.folder} are not followed ({_examples(seen, 'link')})."
        found.append(note(text, "Put the images themselves there."))
    if counts["video"]:
        found.append(
            note(f"{counts['video']} videos in {seen.folder} are skipped.", "Nothing to do; only images are used.")
        )
    return found


def check_shown(case: Case) -> list[Finding]:
    """Timelapse can show the images that are asked for."""
    seen = case.seen.get(POOL)
    if seen is None or seen.error or case.config.labels.tool != "timelapse":
        return []
    found = []
    for extension, n in sorted(seen.not_shown.items()):
        fix = "Rename them to .jpg, which is the same format" if extension == ".jpeg" else "Save copies of them as .jpg"
        text = f"{n} {extension} images are never asked for, since Timelapse shows only .jpg; they are classified."
        found.append(
            note(text, f'{fix}; or, with another labelling tool, set tool = "any" under [labels] in config.toml.')
        )
    if seen.tally.counts["long path"]:
        text = (
            f"{seen.tally.counts['long path']} images have a path of more than 259 characters, which Timelapse does not load,"
            f" such as {_examples(seen, 'long path')}."
        )
        found.append(note(text, "Move the folder nearer to the top of its drive, then name it with `relocate`."))
    return found or [ok("Timelapse can show every image")]


def check_names(case: Case) -> list[Finding]:
    """Names that a spreadsheet would run, that are no text, or that differ only in upper and lower case."""
    found = []
    for seen in case.seen.values():
        for kind in ("unsafe name", "name"):
            if seen.tally.counts[kind]:
                what = "could be run as a formula by a spreadsheet" if kind == "unsafe name" else "are not valid text"
                text = f"{seen.tally.counts[kind]} names in {seen.folder} {what}; those images are never asked for:"
                fix = "Rename them: letters, digits, - and _ are always good."
                found.append(note(f"{text} {_examples(seen, kind)}.", fix))
        if seen.kind == POOL:
            found += [
                note(
                    f"the folders '{first}' and '{second}' in {seen.folder} differ only in upper and lower case, which"
                    " Windows takes for one.",
                    "Rename one of them before answers for either are given.",
                )
                for first, second in _case_clashes(seen.folders)[:SHOWN_NAMES]
            ]
    return found or [ok("all names can be written into a selector and found again")]


def check_classes(case: Case) -> list[Finding]:
    """Each class has a folder, a usable name and images to learn from."""
    found = []
    for kind in (TRAIN, VALIDATION):
        seen = case.seen.get(kind)
        if seen is None or seen.error:
            continue
        for name in sorted(seen.class_folders):
            wrong = class_name_problem(name, case.config.classes.reserved)
            if wrong:
                found.append(
                    problem(f"the folder '{name}' in {seen.folder} cannot be a class: it {wrong}.", "Rename it.")
                )
        for first, second in clashing_names(seen.class_folders):
            text = (
                f"the class folders '{first}' and '{second}' in {seen.folder} differ only in case, blanks or accents."
            )
            found.append(problem(text, "Put their images into one folder."))
        if kind == TRAIN:
            found += _small_classes(seen)
    n = len({folded(name) for name in case.classes()})
    return found or [ok(f"{n} classes are known" if n else "no class is known yet; the first answers bring them")]


def _small_classes(seen: Seen) -> list[Finding]:
    found = []
    sizes = Counter({folded(name): 0 for name in seen.class_folders})
    for name, n in seen.classes.items():
        sizes[folded(name)] += n
    shown = {folded(name): name for name in seen.class_folders}
    for n, what in ((0, "no image"), (1, "one image")):
        names = sorted(shown[key] for key, size in sizes.items() if size == n and key in shown)
        if names:
            of = ", ".join(f"'{name}'" for name in names)
            text = f"{len(names)} class folders in {seen.folder} hold {what}: {of}; each is a class to choose from."
            fix = (
                "Put some images there (two at least teach the network something), or remove a folder that is no class."
            )
            found.append(note(text, fix))
    return found


def check_overlap(case: Case) -> list[Finding]:
    """Validation images are not among those that train."""
    if VALIDATION not in case.seen:
        return []
    found = []
    for kind in (TRAIN, POOL):
        seen = case.seen.get(kind)
        same = _same_content(seen, case.seen[VALIDATION].folder) if seen is not None else []
        if seen is not None and same:
            text = (
                f"{len(same)} validation images are in {seen.folder} too, such as {same[0][1]} and {same[0][0]}, so the"
                " accuracy that is measured is too good."
            )
            found.append(problem(text, "Remove them from the validation folder, or from the other one."))
    is_sample = any(len(seen.twins) >= MOST_TWINS for seen in case.seen.values())
    among = f" ({MOST_TWINS} files of the same size were compared)" if is_sample else ""
    return found or [ok(f"no validation image was found among those that train{among}")]


def _same_content(seen: Seen, validation: Path) -> list[tuple[str, str]]:
    same = []
    for path, other in seen.twins:
        try:
            if hash_file(Path(seen.folder, *path.split("/"))) == hash_file(Path(validation, *other.split("/"))):
                same.append((path, other))
        except (OSError, ImageUnreadableError):
            continue
    return same


def _case_clashes(folders: set[str]) -> list[tuple[str, str]]:
    all_ = {"/".join(path.split("/")[:n]) for path in folders if path for n in range(1, path.count("/") + 2)}
    first: dict[str, str] = {}
    clashes: list[tuple[str, str]] = []
    for path in sorted(all_):
        key = path.casefold()
        other = first.setdefault(key, path)
        if other != path and not any(path.startswith(f"{b}/") or other.startswith(f"{a}/") for a, b in clashes):
            clashes.append((other, path))
    return clashes


def _examples(seen: Seen, kind: str) -> str:
    return ", ".join(seen.tally.examples[kind][:SHOWN_NAMES])
