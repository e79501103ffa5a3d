"""Whether what `predict` is to write may go where it shall: only its own earlier output is replaced."""

from __future__ import annotations

from pathlib import Path

from camera_trap_al.errors import UsageError
from camera_trap_al.exporters.predictions import COLUMNS, TIMELAPSE_COLUMNS
from camera_trap_al.exporters.recognitions import PROGRAM

HEAD_BYTES = 4096
OWN_START = {
    "csv": ",".join(COLUMNS).encode(),
    "timelapse": ",".join(TIMELAPSE_COLUMNS).encode(),
    "megadetector": b'{"info": {"detector": ',
}
# A person's own file of detections may start alike, and must never be replaced.
OWN_WORDS = {"megadetector": f'"classifier": "{PROGRAM}'.encode()}
EXAMPLES = {"csv": "predictions.csv", "timelapse": "predictions.csv", "megadetector": "recognitions.json"}


def check_out(form: str, out: Path) -> None:
    """Raise `UsageError` unless `out` is new or holds predictions in this form, which may be replaced."""
    if not out.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {out.absolute().parent}.", hint="Make it first, or name another file.")
    if form not in OWN_START:
        return
    if out.is_dir():
        raise UsageError(f"{out} is a folder.", hint=f"Name the file to write, such as {EXAMPLES[form]}.")
    if out.exists():
        with out.open("rb") as file:
            head = file.read(HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
        if not head.startswith(OWN_START[form]) or OWN_WORDS.get(form, b"") not in head:
            raise UsageError(f"{out} holds something else than predictions.", hint="Name another file.")
