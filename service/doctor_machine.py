"""Checks of this computer: Python, PyTorch, the processes that decode images, long paths. The graphics card: `doctor_gpu`."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from camera_trap_al.decoder import COMMAND
from camera_trap_al.engine import Decoders
from camera_trap_al.errors import CameraTrapAlError
from camera_trap_al_service.doctor_gpu import Gpu, find_gpu, hidden_by, install_line, run_quietly
from camera_trap_al_service.findings import Case, Finding, note, ok, problem

LEAST_PYTHON = (3, 10)
LEAST_TORCH = (2, 6)
CHILD_S = 180.0
PICTURES = Path(__file__).parent / "demo_pictures"
# What a child process says of PyTorch: this process never loads it. `nms` is compiled code of torchvision, which fails
# where it was built for another torch.
TORCH_PROBE = """
import json, sys
sys.path[:] = [p for p in sys.path if p]
said = {}
def attempt(name, look):
    try:
        said[name] = look()
    except BaseException as error:
        said[name + "_error"] = f"{type(error).__name__}: {error}"
def of_torch():
    import torch
    said.update(cuda=torch.version.cuda or "", hip=getattr(torch.version, "hip", None) or "")
    return torch.__version__
def of_torchvision():
    import torch, torchvision
    said["torchvision"] = torchvision.__version__
    return torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5).tolist() == [0]
def of_gpu():
    import torch
    if not torch.cuda.is_available():
        if said["cuda"] or said["hip"]:
            torch.cuda.init()
        return ""
    said["computes"] = torch.ones(8, device="cuda").sum().item() == 8
    return torch.cuda.get_device_name(0)
def of_others():
    import torch
    mps, xpu = getattr(torch.backends, "mps", None), getattr(torch, "xpu", None)
    found = {"an Apple GPU": mps and mps.is_available(), "an Intel GPU": xpu and xpu.is_available()}
    return [name for name, there in found.items() if there]
attempt("torch", of_torch)
if "torch" in said:
    attempt("fits", of_torchvision)
    attempt("gpu", of_gpu)
    attempt("others", of_others)
print("\\nSAID" + json.dumps(said))
"""
ONNX_PROBE = """
import json, sys
sys.path[:] = [p for p in sys.path if p]
import onnxruntime
print("\\nSAID" + json.dumps({"version": onnxruntime.__version__}))
"""


def check_python(case: Case) -> list[Finding]:
    """Python is new enough, and a program of 64 bits."""
    bits = 64 if sys.maxsize > 2**32 else 32
    text = f"Python {platform.python_version()}, {bits} bit, on {platform.system()} {platform.machine()}"
    if bits == 32:
        return [
            problem(text, "PyTorch needs 64 bits: install the 64-bit Python from python.org, and this program in it.")
        ]
    if sys.version_info[:2] < LEAST_PYTHON:
        return [problem(text, "Install Python 3.10 or later from python.org, and this program in it.")]
    return [ok(text)]


def check_torch(case: Case) -> list[Finding]:
    """PyTorch and torchvision can be loaded, and are made for each other."""
    said = torch_said()
    if "torch" not in said:
        return [problem(f"PyTorch cannot be used: {_why(said, 'torch')}.", _load_fix(_why(said, "torch")))]
    version = str(said["torch"])
    vision = str(said.get("torchvision") or installed_version("torchvision"))
    if version_tuple(version) < LEAST_TORCH:
        return [problem(f"PyTorch {version} is too old.", "python -m pip install --upgrade torch torchvision")]
    if not said.get("fits"):
        return [
            problem(
                f"torchvision {vision or '(not installed)'} does not work with PyTorch {version}: {_why(said, 'fits')}.",
                install_line(version, _gpu_of(said))[0],
            )
        ]
    build = f"for CUDA {said['cuda']}" if said["cuda"] else "for ROCm" if said["hip"] else "for the processor alone"
    return [ok(f"PyTorch {version} (built {build}) and torchvision {vision} work together")]


def check_gpu(case: Case) -> list[Finding]:
    """A graphics card that is there is used."""
    said = torch_said()
    if "torch" not in said:
        return []
    if said.get("gpu") and said.get("computes"):
        return [ok(f"{said['gpu']} is used")]
    gpu = find_gpu()
    if said.get("gpu"):
        line, why = install_line(str(said["torch"]), gpu)
        text = f"{said['gpu']} is there, but this PyTorch cannot compute on it: {_why(said, 'gpu')}."
        return [problem(text, f"Install the build for it ({why}): {line}")]
    if gpu is None:
        others = said.get("others") or []
        there = f"{others[0]} is there, which this program does not use; " if others else "no NVIDIA graphics card; "
        return [ok(f"{there}the processor is used, on which the first training takes hours rather than minutes")]
    if hidden_by():
        return [note(f"{gpu.name} is there, but {hidden_by()}.", "Take that variable away to use the card.")]
    return [_unused(gpu, said)]


def _unused(gpu: Gpu, said: dict[str, Any]) -> Finding:
    if not gpu.driver:
        return note(
            f"{gpu.name} is there, but its driver is not, so the processor is used.",
            "Install the driver from nvidia.com, restart the computer, and run `doctor` again.",
        )
    line, why = install_line(str(said["torch"]), gpu)
    if not line:
        return problem(
            f"{gpu.name} is there and not used: {why}.", "Update its driver (nvidia.com) and run `doctor` again."
        )
    if not said["cuda"]:
        text = f"{gpu.name} is there and not used: this PyTorch {said['torch']} is built for the processor alone."
        return problem(text, f"Install the build for it ({why}): {line}")
    text = f"{gpu.name} is there and not used: PyTorch, built for CUDA {said['cuda']}, says: {_why(said, 'gpu')}."
    return problem(text, f"Update its driver (nvidia.com), or install another build ({why}): {line}")


def check_onnxruntime(case: Case) -> list[Finding]:
    """What runs the finished classifier can be loaded."""
    said = ask_child(ONNX_PROBE)
    if "version" in said:
        return [ok(f"onnxruntime {said['version']}")]
    return [problem(f"onnxruntime cannot be used: {said['error']}.", _load_fix(str(said["error"]), "onnxruntime"))]


def check_decoding(case: Case) -> list[Finding]:
    """Images can be decoded, in processes of their own."""
    picture = next(iter(sorted(PICTURES.rglob("*.jpg"))))
    decoders = Decoders(processes=1)
    try:
        decoders.read(picture)
    except (CameraTrapAlError, OSError) as error:
        text = f"a picture that comes with the program cannot be decoded: {error}"
        return [problem(text, "python -m pip install --force-reinstall pillow")]
    finally:
        decoders.close()
    if not decoders.in_threads:
        return [ok("images are decoded in processes of their own, so a damaged file harms only itself")]
    return [
        note(
            f"no process for decoding can be started ({_why_no_decoder()}), so images are decoded without one: slower, and a"
            " damaged file could end the program.",
            "Let your antivirus or administrator allow this Python to start itself.",
        )
    ]


def check_long_paths(case: Case) -> list[Finding]:
    """Windows: paths of more than 259 characters."""
    enabled = long_paths_enabled()
    if enabled is None:
        return []
    if enabled:
        return [ok("Windows allows long paths (Timelapse itself shows no picture whose path is over 259 characters)")]
    return [
        note(
            "Windows allows no path of more than 259 characters.",
            "Keep the folders of pictures and the work folder near the top of a drive, such as D:\\photos; or let your"
            " administrator set LongPathsEnabled.",
        )
    ]


def long_paths_enabled() -> bool | None:
    """Return whether Windows lets programs use long paths, None on other systems."""
    if sys.platform != "win32":
        return None
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return False


@functools.cache
def torch_said() -> dict[str, Any]:
    """Return what a child process says of PyTorch, as `TORCH_PROBE` collects it; `error` where it did not answer."""
    return ask_child(TORCH_PROBE)


def ask_child(script: str, within_s: float = CHILD_S) -> dict[str, Any]:
    """Return what a Python script says, run in a process of its own; `error` where it does not come to that."""
    try:
        child = run_quietly([sys.executable, "-c", script], within_s)
    except subprocess.TimeoutExpired:
        return {"error": f"it did not load within {within_s:.0f} seconds"}
    except OSError as error:
        return {"error": f"no Python can be started ({error.strerror or error})"}
    answers = [line[4:] for line in child.stdout.splitlines() if line.startswith("SAID")]
    if answers:
        return dict(json.loads(answers[-1]))
    last = [line.strip() for line in child.stderr.splitlines() if line.strip()][-1:]
    return {"error": last[0] if last else f"the process ended with status {child.returncode}"}


def installed_version(name: str) -> str:
    """Return which version of a package is installed, "" for none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def version_tuple(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version."""
    major, _, rest = version.partition(".")
    return int(major), int("".join(c for c in rest.partition(".")[0] if c.isdigit()) or 0)


def _gpu_of(said: dict[str, Any]) -> Gpu | None:
    return find_gpu() if said["cuda"] else None


def _why(said: dict[str, Any], name: str) -> str:
    text = str(said.get(f"{name}_error") or said.get("error") or "it gives a wrong result")
    return text.strip().splitlines()[0].rstrip(". ")


def _load_fix(why: str, package: str = "torch torchvision") -> str:
    if "DLL" in why:
        return (
            "Install the Microsoft Visual C++ Redistributable (x64, from microsoft.com); if that is not enough: python -m pip"
            f" install --force-reinstall {package}"
        )
    if "did not load" in why or "can be started" in why:
        return "Let your antivirus or administrator allow this Python to start itself, then run `doctor` again."
    return f"python -m pip install --force-reinstall {package}"


def _why_no_decoder() -> str:
    try:
        child = run_quietly(COMMAND, CHILD_S)
    except subprocess.TimeoutExpired:
        return "it does not answer"
    except OSError as error:
        return str(error.strerror or error)
    last = [line.strip() for line in child.stderr.splitlines() if line.strip()][-1:]
    return last[0] if last else f"it ended with status {child.returncode}"
