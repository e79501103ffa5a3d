"""The verb `doctor`: looks at this computer and a work folder, and names a way out for whatever is wrong.

The checks themselves are in `doctor_machine`, `doctor_work` and `doctor_images`. None of them imports torch or changes a
work folder, and each works beside a running program and on a folder that is damaged or half made.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from camera_trap_al.errors import in_words
from camera_trap_al_service import (
    detections,
    doctor_images,
    doctor_machine,
    doctor_template,
    doctor_work,
    notifying,
)
from camera_trap_al_service.findings import NOTE, PROBLEM, Case, Finding, finding_line, problem


class Check(NamedTuple):
    """One thing to look at. `run` returns a finding for each thing to say, none where the check does not apply."""

    name: str
    run: Callable[[Case], list[Finding]]


MACHINE = (
    Check("python", doctor_machine.check_python),
    Check("torch", doctor_machine.check_torch),
    Check("gpu", doctor_machine.check_gpu),
    Check("onnxruntime", doctor_machine.check_onnxruntime),
    Check("decoding", doctor_machine.check_decoding),
    Check("long paths", doctor_machine.check_long_paths),
)
WORK = (
    Check("places", doctor_work.check_places),
    Check("rights", doctor_work.check_rights),
    Check("links", doctor_work.check_links),
    Check("network", doctor_work.check_network),
    Check("locks", doctor_work.check_locks),
    Check("watching", doctor_work.check_watching),
    Check("journal", doctor_work.check_journal),
    Check("clock", doctor_work.check_clock),
    Check("disk", doctor_work.check_disk),
    Check("notify", notifying.check_command),
    Check("images", doctor_images.check_images),
    Check("shown", doctor_images.check_shown),
    Check("names", doctor_images.check_names),
    Check("classes", doctor_images.check_classes),
    Check("overlap", doctor_images.check_overlap),
    Check("detections", detections.check_detections),
    Check("template", doctor_template.check_template),
    Check("species", doctor_template.check_species),
    Check("timelapse", doctor_template.check_timelapse),
)
CONFIGURATION = Check("config.toml", doctor_work.check_configuration)


def diagnose(case: Case, say: Callable[[str, Finding], None]) -> int:
    """Run all checks that apply; return how many problems there are.

    Parameters
    ----------
    case : what to look at; without a work folder, or with one whose configuration cannot be used, only what is left
    say : called with the name of a check and what it found, as soon as that is known
    """
    before = logging.root.manager.disable
    # What the parts log of themselves is said here as findings.
    logging.disable(logging.ERROR)
    try:
        n = sum(_run(check, case, say) for check in MACHINE)
        if case.root is not None:
            n += _run(CONFIGURATION, case, say)
        if case.settings is not None:
            n += sum(_run(check, case, say) for check in WORK)
    finally:
        logging.disable(before)
    return n


def _run(check: Check, case: Case, say: Callable[[str, Finding], None]) -> int:
    try:
        found = check.run(case)
    # Whatever is wrong with a computer or a folder, the other checks are made.
    except Exception as error:
        found = [problem(f"this could not be looked at: {_why(error)}", "Correct that and run `doctor` again.")]
    for finding in found:
        say(check.name, finding)
    return sum(finding.level == PROBLEM for finding in found)


def _why(error: Exception) -> str:
    # Nothing here is replaced, so that a file may not be read is no sign that another program holds it.
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}."
    return in_words(error)


def doctor(
    root: Path | None,
    *,
    say: Callable[[str], None],
    on_progress: Callable[[str, int], None],
    as_json: bool = False,
) -> int:
    """Say line by line how this computer and a work folder are, then the sum; return how many problems there are.

    `as_json` makes each line a JSON object, without the sum.
    """
    levels: list[str] = []

    def tell(name: str, finding: Finding) -> None:
        levels.append(finding.level)
        say(
            json.dumps({"check": name, **asdict(finding)}, ensure_ascii=False)
            if as_json
            else finding_line(name, finding)
        )

    n = diagnose(Case(root, on_progress), tell)
    notes = levels.count(NOTE)
    sums = f"{n} problem{'s' * (n != 1)}, {notes} note{'s' * (notes != 1)}"
    if not as_json:
        say(f"{sums}." if n else f"{sums}. All that is needed is there.")
    return n
