"""`doctor` as a whole, and its checks of the computer: each problem is made, and its line and way out are seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from doctor_world import World, is_well, only

from camera_trap_al.config_file import read_work_config
from camera_trap_al.engine import Decoders
from camera_trap_al.errors import ImageUnreadableError
from camera_trap_al.lock import DaemonLock
from camera_trap_al_service import doctor as frame
from camera_trap_al_service import doctor_gpu, doctor_machine, doctor_work
from camera_trap_al_service.cli import main
from camera_trap_al_service.doctor_gpu import Gpu, choose_build, find_gpu, install_line
from camera_trap_al_service.doctor_machine import (
    TORCH_PROBE,
    ask_child,
    check_decoding,
    check_gpu,
    check_long_paths,
    check_onnxruntime,
    check_python,
    check_torch,
)
from camera_trap_al_service.findings import Case

GOOD_TORCH = {
    "torch": "2.9.1+cpu",
    "cuda": "",
    "hip": "",
    "torchvision": "0.24.1+cpu",
    "fits": True,
    "gpu": "",
    "others": [],
}
RTX = Gpu("NVIDIA RTX 4000", "560.35", (12, 6), (8, 9))
MACHINE = Case(None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the child says of PyTorch, to be changed; no graphics card is there."""
    said: dict[str, Any] = dict(GOOD_TORCH)
    monkeypatch.setattr(doctor_machine, "torch_said", lambda: said)
    monkeypatch.setattr(doctor_machine, "find_gpu", lambda: None)
    monkeypatch.setattr(doctor_machine, "hidden_by", lambda: "")
    return said


@pytest.fixture
def machine(torch: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer on which all is well, without the seconds that looking takes."""
    monkeypatch.setattr(doctor_machine, "ask_child", lambda script: {"version": "1.20"})
    monkeypatch.setattr(frame.doctor_machine, "Decoders", Mock(return_value=Mock(in_threads=False)))
    monkeypatch.setattr(doctor_work, "EVENT_S", 30.0)


def test_a_sound_work_folder_has_no_problem_and_nothing_in_it_changes(
    world: World, machine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = world.tree()
    assert main(["doctor", str(world.work)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok ", "note ")) for line in said[:-1]) and said[-1].startswith("0 problems")
    checked = {line.split()[1] for line in said[:-1]}
    assert checked >= {
        "python:",
        "torch:",
        "config.toml:",
        "watching:",
        "locks:",
        "disk:",
        "images:",
        "template:",
        "species:",
    }
    assert world.tree() == before


def test_a_problem_is_counted_and_ends_with_status_1(
    world: World, machine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.pool / "TimelapseTemplate.tdb").unlink()
    assert main(["doctor", str(world.work)]) == 1
    said = capsys.readouterr().out.splitlines()
    line = next(line for line in said if line.startswith("problem"))
    assert "template:" in line and " → Make one" in line and said[-1].startswith("1 problem,")


def test_beside_the_running_program_it_says_who_runs_and_disturbs_nothing(
    world: World, machine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = read_work_config(world.work)
    lock = DaemonLock.take(folder)
    try:
        assert main(["doctor", str(world.work)]) == 0
        assert "locks: the program is running (process" in capsys.readouterr().out
        lock.lease.check()
    finally:
        lock.release()


def test_without_a_work_folder_only_the_computer_is_looked_at(
    machine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [check.name for check in frame.MACHINE if check.name != "long paths" or sys.platform == "win32"]
    assert [part["check"] for part in said] == names
    assert set(said[0]) == {"check", "level", "text", "fix"}


@pytest.mark.parametrize("damage", ["empty", "toml", "journal", "zeros", "file", "half"])
def test_a_damaged_folder_gets_an_answer_and_a_way_out(
    world: World, machine: None, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = world.work
    if damage == "empty":
        work = world.root / "nothing"
        work.mkdir()
    elif damage == "toml":
        (work / "config.toml").write_text("[data\n", encoding="utf-8")
    elif damage in ("journal", "zeros"):
        (work / "data" / "journal.jsonl").write_bytes(b"{}\n{}\n" if damage == "journal" else bytes(4096))
        (work / "data" / "catalog.sqlite").write_bytes(b"no database")
        (work / "lease.json").write_bytes(b"\0\0")
    elif damage == "file":
        work = world.put("a file", b"")
    else:
        for path in sorted(work.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
        (world.pool / "TimelapseTemplate.tdb").write_bytes(b"no database")
    before = world.tree()
    code = main(["doctor", str(work)])
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem ")]
    assert code == (1 if problems else 0) and world.tree() == before
    assert damage == "zeros" or problems
    assert all(" → " in line for line in problems)


def test_every_check_survives_that_something_cannot_be_looked_at(
    world: World, machine: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [PermissionError(13, "Permission denied", str(world.pool)), RuntimeError("Symlink loop")]

    def fails(case: Case) -> list[Any]:
        raise errors.pop(0)

    monkeypatch.setattr(frame, "MACHINE", (frame.Check("python", fails), frame.Check("torch", fails)))
    assert main(["doctor", str(world.work)]) == 1
    said = capsys.readouterr().out
    assert f"problem  python: this could not be looked at: {world.pool}: Permission denied." in said
    assert "problem  torch: this could not be looked at: RuntimeError: Symlink loop" in said and "watching:" in said


def test_the_help_of_every_check_is_its_docstring() -> None:
    checks = (*frame.MACHINE, frame.CONFIGURATION, *frame.WORK)
    assert all(check.run.__doc__ for check in checks) and len({check.name for check in checks}) == len(checks)


def test_this_python_is_good_and_32_bit_or_an_old_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_well(check_python(MACHINE))
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert "64-bit Python" in only(check_python(MACHINE), "problem").fix
    monkeypatch.undo()
    monkeypatch.setattr(doctor_machine, "LEAST_PYTHON", (99, 0))
    assert "Install Python" in only(check_python(MACHINE), "problem").fix


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ({"error": "it did not load within 180 seconds"}, "antivirus"),
        ({"torch_error": "ImportError: DLL load failed while importing _C"}, "Visual C++ Redistributable"),
        (
            {"torch_error": "ModuleNotFoundError: No module named 'torch'"},
            "pip install --force-reinstall torch torchvision",
        ),
        ({**GOOD_TORCH, "torch": "2.5.1"}, "--upgrade torch"),
        (
            {**GOOD_TORCH, "fits": None, "fits_error": "RuntimeError: operator torchvision::nms does not exist"},
            "torch==2.9.1 torchvision==0.24.1",
        ),
        (
            {**GOOD_TORCH, "torchvision": "", "fits": None, "fits_error": "No module named 'torchvision'"},
            "torchvision==0.24.1",
        ),
    ],
)
def test_a_torch_that_cannot_be_used_gets_the_line_that_mends_it(torch: dict[str, Any], said: Any, fix: str) -> None:
    assert is_well(check_torch(MACHINE))
    torch.clear()
    torch.update(said)
    assert fix in only(check_torch(MACHINE), "problem").fix


def test_a_card_that_is_not_used_gets_the_line_that_installs_the_right_build(
    torch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no NVIDIA graphics card" in only(check_gpu(MACHINE), "ok").text
    monkeypatch.setattr(doctor_machine, "find_gpu", lambda: RTX)
    found = only(check_gpu(MACHINE), "problem")
    assert "NVIDIA RTX 4000 is there and not used" in found.text and "built for the processor alone" in found.text
    line = "python -m pip install --force-reinstall torch==2.9.1 torchvision==0.24.1"
    assert f"{line} --index-url https://download.pytorch.org/whl/cu126" in found.fix
    assert "its driver 560.35 knows CUDA up to 12.6" in found.fix
    monkeypatch.setattr(doctor_machine, "find_gpu", lambda: Gpu("NVIDIA RTX 4000"))
    assert "Install the driver" in only(check_gpu(MACHINE), "note").fix
    monkeypatch.setattr(doctor_machine, "find_gpu", lambda: Gpu("NVIDIA GTX 460", "390.1", (9, 1)))
    assert "Update its driver" in only(check_gpu(MACHINE), "problem").fix
    monkeypatch.setattr(doctor_machine, "find_gpu", lambda: RTX)
    torch.update(cuda="13.0", gpu=None, gpu_error="RuntimeError: The NVIDIA driver on your system is too old")
    found = only(check_gpu(MACHINE), "problem")
    assert "driver on your system is too old" in found.text and "cu126" in found.fix
    torch.update(gpu="NVIDIA RTX 4000", computes=None, gpu_error="no kernel image is available")
    assert "cannot compute on it" in only(check_gpu(MACHINE), "problem").text
    torch.update(gpu="NVIDIA RTX 4000", computes=True)
    assert "NVIDIA RTX 4000 is used" in only(check_gpu(MACHINE), "ok").text


def test_a_card_that_a_variable_hides_is_named(torch: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "find_gpu", lambda: RTX)
    monkeypatch.setattr(doctor_machine, "hidden_by", doctor_gpu.hidden_by)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES" in only(check_gpu(MACHINE), "note").text


@pytest.mark.parametrize(
    ("torch_version", "cuda", "capability", "build"),
    [
        ((2, 6), (12, 4), (8, 6), (12, 4)),
        ((2, 9), (13, 1), (8, 6), (13, 0)),
        ((2, 9), (12, 2), (8, 6), (12, 6)),
        ((2, 9), (13, 0), (6, 1), (12, 6)),
        ((2, 14), (12, 9), (12, 0), None),
        ((2, 14), (13, 0), (12, 0), (13, 0)),
        ((2, 14), (11, 4), (7, 5), None),
        ((2, 7), (11, 4), (7, 5), (11, 8)),
        ((2, 99), (14, 0), None, (13, 0)),
        ((2, 9), None, None, (12, 6)),
    ],
)
def test_the_build_fits_driver_and_card(torch_version: Any, cuda: Any, capability: Any, build: Any) -> None:
    assert choose_build(torch_version, Gpu("card", "1", cuda, capability))[0] == build


def test_versions_of_nightly_and_local_builds_make_a_line_too() -> None:
    for version in ("2.9.0+cpu", "2.9.0a0+git1", "2.9.0.dev20250901+cpu", "2.9"):
        assert "torch==2.9.0 torchvision==0.24.0" in install_line(version, None)[0]


SMI = """| NVIDIA-SMI 560.35.03    Driver Version: 560.35.03    CUDA Version: 12.6 |"""


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("NVIDIA RTX 4000, 560.35.03, 8.9\n", Gpu("NVIDIA RTX 4000", "560.35.03", (12, 6), (8, 9))),
        ("", Gpu("an NVIDIA graphics card", "560.35.03", (12, 6))),
    ],
)
def test_the_card_is_found_by_what_its_own_tool_prints(
    monkeypatch: pytest.MonkeyPatch, row: str, expected: Gpu
) -> None:
    monkeypatch.setattr(doctor_gpu.shutil, "which", lambda path: path)
    monkeypatch.setattr(doctor_gpu, "_printed", lambda command: row if len(command) > 1 else SMI)
    assert find_gpu() == expected


def test_a_tool_that_fails_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_gpu._printed([sys.executable, "-c", "print(1); raise SystemExit(9)"]) == ""
    assert doctor_gpu._printed(["a program that is not there"]) == ""
    monkeypatch.setattr(doctor_gpu.shutil, "which", lambda path: path)
    monkeypatch.setattr(doctor_gpu, "_printed", lambda command: "")
    assert doctor_gpu._by_nvidia_smi() is None


def test_a_child_is_heard_whatever_it_prints_beside_and_however_it_ends() -> None:
    assert ask_child("print('hello'); print('SAID{\"a\": 1}'); print('bye')") == {"a": 1}
    assert ask_child("raise ImportError('no such thing')") == {"error": "ImportError: no such thing"}
    assert ask_child("import os; os._exit(3)") == {"error": "the process ended with status 3"}
    assert "within 0 seconds" in ask_child("import time; time.sleep(60)", within_s=0.2)["error"]


def test_a_torch_that_is_not_there_is_told_by_the_child() -> None:
    blocked = "import sys; sys.modules['torch'] = None\n" + TORCH_PROBE
    said = ask_child(blocked)
    assert "torch" not in said and "import of torch halted" in said["torch_error"]


def test_onnxruntime_is_loaded_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "ask_child", lambda script: {"error": "ImportError: DLL load failed"})
    found = only(check_onnxruntime(MACHINE), "problem")
    assert "Redistributable" in found.fix and "onnxruntime" in found.fix


@pytest.mark.slow
def test_the_real_torch_and_onnxruntime_answer() -> None:
    said = ask_child(TORCH_PROBE)
    assert said["fits"] is True and ("gpu" in said or "gpu_error" in said)
    assert is_well(check_onnxruntime(MACHINE))


def test_images_are_decoded_in_processes_and_the_thread_fallback_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_well(check_decoding(MACHINE))
    forbidden = (sys.executable, "-c", "raise SystemExit('forbidden here')")
    monkeypatch.setattr(doctor_machine, "COMMAND", forbidden)
    monkeypatch.setattr(doctor_machine, "Decoders", lambda **options: Decoders(**options, command=forbidden))
    found = only(check_decoding(MACHINE), "note")
    assert "forbidden here" in found.text and "antivirus" in found.fix


def test_a_decoder_that_cannot_read_our_own_picture_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Decoders, path: Path) -> None:
        raise ImageUnreadableError("no JPEG here", code="not_an_image")

    monkeypatch.setattr(Decoders, "read", fails)
    assert "force-reinstall pillow" in only(check_decoding(MACHINE), "problem").fix


def test_long_paths_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "long_paths_enabled", lambda: None)
    assert check_long_paths(MACHINE) == []
    monkeypatch.setattr(doctor_machine, "long_paths_enabled", lambda: True)
    assert is_well(check_long_paths(MACHINE))
    monkeypatch.setattr(doctor_machine, "long_paths_enabled", lambda: False)
    assert "LongPathsEnabled" in only(check_long_paths(MACHINE), "note").fix
