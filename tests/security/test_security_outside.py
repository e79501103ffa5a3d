"""A whole season: the image root and the bin stay as they were, nothing is written elsewhere, nobody is called."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_world import answer, contents, make_world, run

from camera_trap_al_service.cli import main

ROOT = Path(__file__).resolve().parents[2]
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")
CHANGES = {
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "rmdir",
    "truncate",
    "link",
    "symlink",
}
CHANGES |= {"chmod", "fchmodat", "chown", "fchownat", "utimensat", "linkat", "symlinkat", "mknod", "mknodat", "creat"}
ELSEWHERE = ("/dev/", "/proc/", "/sys/")


def users_files(work: Path) -> dict[str, str]:
    """Return the files that belong to people."""
    labels = {f"bin/{name}": sha for name, sha in contents(work / "new_labels_bin").items() if name.endswith(".csv")}
    return (
        labels | contents(work.parent / "pool") | contents(work.parent / "train") | contents(work.parent / "validation")
    )


@pytest.mark.slow
def test_no_file_of_a_person_changes_in_a_season(tmp_path: Path, no_torch: None) -> None:
    work = make_world(tmp_path)
    (tmp_path / "pool" / "broken.jpg").write_bytes(b"no image")
    (work / "new_labels_bin" / "bad.csv").write_bytes(b"\xff\xfe\0nothing")
    run(work)
    answer(work)
    (work / "new_labels_bin" / "photo.csv").write_bytes((tmp_path / "pool" / "red0.jpg").read_bytes())
    before = users_files(work)
    run(work)
    assert main(["export", str(work), "--to", str(tmp_path / "copy")]) == 0
    out = str(tmp_path / "p.csv")
    assert main(["predict", str(tmp_path / "copy"), str(tmp_path / "pool"), "--out", out]) == 0
    assert users_files(work) == before and len([name for name in before if name.startswith("bin/")]) == 3


@pytest.mark.slow
def test_nobody_is_called(tmp_path: Path, no_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []

    def refuse(self: Any, *address: object) -> None:
        called.append(address)
        raise OSError("this program called somebody")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    work = make_world(tmp_path)
    assert main(["run", str(work), "--until", "idle"]) == 0
    answer(work)
    assert main(["run", str(work), "--until", "idle"]) == 0
    assert main(["status", str(work)]) == 0
    assert main(["export", str(work), "--to", str(tmp_path / "copy")]) == 0
    assert main(["predict", str(tmp_path / "copy"), str(tmp_path / "pool"), "--out", str(tmp_path / "p.csv")]) == 0
    assert called == []


def run_to_its_end(command: list[str], environment: dict[str, str], said: Path) -> tuple[int, str]:
    """Run a command and return its status and what it said; it is ended, with its children, after five minutes."""
    # Not by pipes, which the children of a tracer that is killed would hold open.
    with said.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        status = process.wait(300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, said.read_text(encoding="utf-8", errors="replace")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which lists system calls, is not installed")
def test_the_system_sees_no_write_outside_our_own_names(tmp_path: Path) -> None:
    work = make_world(tmp_path, daemon__worker="process")
    start = "import sys; sys.path.insert(0, 'tests'); import conftest\n"
    start += "from camera_trap_al_service.cli import main; sys.exit(main())"
    trace, temporary = tmp_path / "trace", tmp_path / "tmp"
    temporary.mkdir()
    site = ROOT / "tests" / "faults" / "no_torch_site"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT), str(ROOT / "tests")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
        "MPLCONFIGDIR": str(temporary),
    }
    tracer = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=%file,connect,sendto", "-o", str(trace)]
    for _ in range(2):
        command = [*tracer, sys.executable, "-c", start, "run", str(work), "--until", "idle"]
        status, said = run_to_its_end(command, environment, tmp_path / "said")
        if "not permitted" in said and not trace.exists():
            pytest.skip("this system lets nobody trace a process")
        assert status == 0, said
        answer(work, f"{os.urandom(4).hex()}.csv")
    allowed = (str(work), str(temporary), *ELSEWHERE)
    seen, outside = 0, []
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        call = re.match(r"\d+ +([a-z0-9]+)\(", line)
        if call and call[1] in ("connect", "sendto") and "AF_INET" in line:
            outside.append(line)
        if (
            not call
            or " = -1 " in line
            or not (call[1] in CHANGES or call[1].startswith("open") and WRITES.search(line))
        ):
            continue
        paths = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
        seen += 1
        outside += [line for path in paths[:2] if path.startswith("/") and not path.startswith(allowed)]
    assert seen > 50
    assert [line for line in outside if "__pycache__" not in line] == []
