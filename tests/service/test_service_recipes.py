"""The recipes in `service/` say what the program does: paths, verbs, exit codes, options of systemd, and how it is stopped."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from source_code import ROOT

from camera_trap_al.errors import EXIT_DAMAGED, EXIT_LOCKED, EXIT_USAGE
from camera_trap_al_service.cli import _parser
from camera_trap_al_service.stopping import END_S, LAST_S, SIGNALS

SERVICE = ROOT / "service"
UNITS = ("camera-trap-al.service", "camera-trap-al-user.service")
NOT_AGAIN = {EXIT_USAGE, EXIT_DAMAGED, EXIT_LOCKED}


def unit(name: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((SERVICE / name).read_text(encoding="utf-8"))
    return {section: dict(parser[section]) for section in parser.sections()}


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the container file and what stands behind each, its lines joined."""
    text = (SERVICE / "Containerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line]


SCRIPT = (SERVICE / "windows-task.ps1").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*UNITS, "windows-task.ps1", "Containerfile"])
def test_every_recipe_is_installed_with_the_program(name: str) -> None:
    assert f'"{name}"' in (ROOT / "setup.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_verb_again_unless_that_cannot_help_and_gives_it_time_to_end(name: str) -> None:
    service = unit(name)["Service"]
    program, *arguments = service["ExecStart"].split()
    assert Path(program).name == "camera-trap-al" and _parser().parse_args(arguments)
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == NOT_AGAIN
    assert service["Restart"] == "on-failure" and service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > END_S + LAST_S and service["KillSignal"] in SIGNALS
    assert {"StartLimitIntervalSec", "StartLimitBurst"} <= set(unit(name)["Unit"])


def test_the_unit_of_a_user_asks_for_nothing_that_only_an_administrator_can_give() -> None:
    service = unit(UNITS[1])["Service"]
    assert not {"User", "Group", "StateDirectory", "CapabilityBoundingSet"} & set(service)
    assert not [name for name in service if name.startswith(("Protect", "Private", "ReadOnly", "ReadWrite"))]
    assert unit(UNITS[1])["Install"]["WantedBy"] == "default.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_the_units_without_a_complaint(name: str, tmp_path: Path) -> None:
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", (SERVICE / name).read_text(encoding="utf-8"))
    (tmp_path / name).write_text(text, encoding="utf-8")
    kind = ["--user"] if name == UNITS[1] else []
    command = ["systemd-analyze", *kind, "verify", "--man=no", str(tmp_path / name)]
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "bus" in done.stderr.lower():
        pytest.skip(f"systemd-analyze has no systemd to ask: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_holds_what_the_installation_needs_and_runs_as_nobody_in_particular() -> None:
    found = instructions()
    copied = [source for name, text in found if name == "COPY" for source in text.split()[:-1]]
    assert all((ROOT / source).exists() for source in copied)
    assert {"setup.py", "pyproject.toml", "README.md", "camera_trap_al", "service"} <= set(copied)
    order = [name for name, _ in found]
    assert found[0][0] == "FROM" and order.count("USER") == 1
    assert order.index("USER") > max(i for i, name in enumerate(order) if name == "RUN")
    (user,) = (text for name, text in found if name == "USER")
    assert user not in ("root", "0") and any(f"--create-home {user}" in text for name, text in found if name == "RUN")
    assert ("VOLUME", '["/work"]') in found


def test_the_container_runs_the_program_and_asks_it_how_it_is() -> None:
    found = dict(instructions())
    assert found["ENTRYPOINT"] == '["camera-trap-al"]' and found["CMD"] == '["run", "/work"]'
    assert _parser().parse_args(["run", "/work"]) and found["STOPSIGNAL"] in SIGNALS
    asked, _, looked_for = found["HEALTHCHECK"].partition(" CMD ")[2].partition(" | ")
    assert _parser().parse_args(asked.split()[1:]) and '"running": true' in looked_for
    assert '"camera-trap-al = ' in (ROOT / "setup.py").read_text(encoding="utf-8").replace("[f", "[")


def test_the_windows_task_starts_again_unless_that_cannot_help_and_gives_it_time_to_end() -> None:
    (codes,) = re.findall(r"(?m)^\$NotAgain = @\(([\d, ]+)\)$", SCRIPT)
    assert {int(code) for code in codes.split(",")} == NOT_AGAIN
    (stop_s,) = re.findall(r"(?m)^\$StopSeconds = (\d+)$", SCRIPT)
    assert int(stop_s) > END_S + LAST_S and "SIGBREAK" in SIGNALS and "GenerateConsoleCtrlEvent(1, 0)" in SCRIPT


def test_the_windows_task_reads_what_the_status_file_holds() -> None:
    code = (SERVICE / "daemon.py").read_text(encoding="utf-8")
    names = set(re.findall(r"\$status\.(\w+)", SCRIPT))
    assert names == {"host", "pid"} and all(f'"{name}": ' in code for name in names)


def test_every_verb_of_the_windows_task_is_explained_and_done() -> None:
    (verbs,) = re.findall(r"\[ValidateSet\((.*?)\)\]", SCRIPT)
    listed = re.findall(r'"(\w+)"', verbs)
    done = re.findall(r'(?m)^    "(\w+)" \{', SCRIPT)
    assert sorted(listed) == sorted(done)
    assert all(f"windows-task.ps1 {verb}" in SCRIPT.partition("#>")[0] for verb in listed if verb != "run")


def test_the_windows_task_is_plain_text_that_every_powershell_reads_alike() -> None:
    # Windows' own PowerShell takes a file without a byte order mark for the code page of the computer.
    assert SCRIPT.isascii()
