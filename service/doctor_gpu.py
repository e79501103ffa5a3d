"""Which graphics card of NVIDIA is in this computer, and which build of PyTorch fits it. Never loads PyTorch."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ASK_S = 30.0
INDEX = "https://download.pytorch.org/whl"
WHEELS = (
    ((2, 6), ((11, 8), (12, 4), (12, 6))),
    ((2, 7), ((11, 8), (12, 6), (12, 8))),
    ((2, 8), ((12, 6), (12, 8), (12, 9))),
    ((2, 9), ((12, 6), (12, 8), (13, 0))),
    ((2, 12), ((12, 6), (13, 0))),
)
"""For which CUDA each PyTorch from this version on is built. Source: the release matrix of PyTorch (RELEASE.md)."""
DRIVER_CUDA = ((580, (13, 0)), (570, (12, 8)), (560, (12, 6)), (550, (12, 4)), (525, (12, 0)), (450, (11, 0)))
"""The CUDA that a driver from this version on knows. Source: NVIDIA's CUDA release notes."""
OLDEST_IN_NEW_BUILDS, LAST_OLD_BUILD = (7, 5), (12, 6)
NEWEST_IN_OLD_BUILDS, FIRST_NEW_BUILD = (10, 0), (12, 8)
VENDOR_NVIDIA, CLASS_DISPLAY = "0x10de", "0x03"


@dataclass(frozen=True)
class Gpu:
    """A graphics card. `driver` is its version, "" without one; `cuda` the newest CUDA that the driver knows.

    `capability` is the generation of the card, as NVIDIA numbers them. None where it is not known.
    """

    name: str
    driver: str = ""
    cuda: tuple[int, int] | None = None
    capability: tuple[int, int] | None = None


def find_gpu() -> Gpu | None:
    """Return the first graphics card of NVIDIA, None where there seems to be none."""
    return _by_nvidia_smi() or _by_driver_file() or _without_driver()


def hidden_by() -> str:
    """Return a phrase that says which variable hides the graphics card from every program, "" for none."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"CUDA_VISIBLE_DEVICES='{value}' hides it" if value is not None and value.strip() in ("", "-1") else ""


def install_line(torch: str, gpu: Gpu | None) -> tuple[str, str]:
    """Return the command that installs the build of this version of PyTorch that fits, and how it was chosen.

    The command is "" where the driver of the card is too old for every build. Without a card it is the usual build.
    """
    base = re.split(r"[+]|a\d|b\d|rc|\.dev", torch)[0]
    major, minor, patch = (int(part) for part in (*base.split("."), "0", "0")[:3])
    # torchvision counts its versions 15 behind those of PyTorch.
    pair = f"torch=={major}.{minor}.{patch} torchvision==0.{minor + 15}.{patch}"
    command = f"python -m pip install --force-reinstall {pair}"
    if gpu is None:
        return command, "the usual build"
    build, why = choose_build((major, minor), gpu)
    return (f"{command} --index-url {INDEX}/cu{build[0]}{build[1]}" if build else ""), why


def choose_build(torch: tuple[int, int], gpu: Gpu) -> tuple[tuple[int, int] | None, str]:
    """Return for which CUDA PyTorch should be built for a card, None where its driver is too old, and a reason.

    Parameters
    ----------
    torch : major and minor version of PyTorch
    """
    builds = [cuda for first, cuda in WHEELS if first <= torch][-1:] or [WHEELS[0][1]]
    fitting = [build for build in builds[0] if _knows(build, torch, gpu.capability)]
    if gpu.cuda is None:
        return (fitting[0], "the oldest that fits the card, as its driver does not say more") if fitting else (None, "")
    newest = f"its driver {gpu.driver} knows CUDA up to {gpu.cuda[0]}.{gpu.cuda[1]}"
    older = [build for build in fitting if build <= gpu.cuda]
    if older:
        return older[-1], newest
    # Within one major version newer builds run on older drivers.
    same = [build for build in fitting if build[0] == gpu.cuda[0]]
    return (same[0] if same and not _needs_new(gpu.capability) else None), newest


def _knows(build: tuple[int, int], torch: tuple[int, int], capability: tuple[int, int] | None) -> bool:
    """Return whether a build can compute on cards of a generation."""
    if capability is None:
        return True
    if capability < OLDEST_IN_NEW_BUILDS and torch >= (2, 8):
        return build <= LAST_OLD_BUILD
    return build >= FIRST_NEW_BUILD if _needs_new(capability) else True


def _needs_new(capability: tuple[int, int] | None) -> bool:
    return capability is not None and capability >= NEWEST_IN_OLD_BUILDS


def _by_nvidia_smi() -> Gpu | None:
    program = next((path for path in _nvidia_smi_places() if shutil.which(path)), None)
    if program is None:
        return None
    said = _printed([program])
    cuda = re.search(r"CUDA (?:UMD )?Version:\s*(\d+)\.(\d+)", said)
    asked = [program, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    row = next(csv.reader(_printed(asked).splitlines(), skipinitialspace=True), [])
    driver = re.search(r"Driver Version:\s*([\d.]+)", said)
    if not row and not driver:
        return None
    number = re.fullmatch(r"(\d+)\.(\d+)", row[2].strip()) if len(row) > 2 else None
    return Gpu(
        row[0].strip() if row else "an NVIDIA graphics card",
        row[1].strip() if len(row) > 1 else driver[1] if driver else "",
        (int(cuda[1]), int(cuda[2])) if cuda else None,
        (int(number[1]), int(number[2])) if number else None,
    )


def _nvidia_smi_places() -> list[str]:
    places = ["nvidia-smi"]
    if sys.platform == "win32":
        places += [
            str(Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvidia-smi.exe")),
            str(
                Path(
                    os.environ.get("PROGRAMFILES", r"C:\Program Files"), "NVIDIA Corporation", "NVSMI", "nvidia-smi.exe"
                )
            ),
        ]
    return [*places, "/usr/lib/wsl/lib/nvidia-smi"]


def _by_driver_file() -> Gpu | None:
    """Linux: what the driver says of itself, where its tools are not installed."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    version = re.search(r"\s(\d+)\.[\d.]+\s", text)
    if version is None:
        return None
    cuda = next((cuda for first, cuda in DRIVER_CUDA if int(version[1]) >= first), None)
    return Gpu("an NVIDIA graphics card", version[0].strip(), cuda)


def _without_driver() -> Gpu | None:
    """Return a card that the system sees, though no driver for computing on it is there."""
    if sys.platform == "win32":
        query = "(Get-CimInstance Win32_VideoController).Name"
        names = _printed(["powershell", "-NoProfile", "-NonInteractive", "-Command", query]).splitlines()
        found = next((name.strip() for name in names if "nvidia" in name.lower()), "")
        return Gpu(found) if found else None
    for device in sorted(Path("/sys/bus/pci/devices").glob("*")):
        try:
            vendor = (device / "vendor").read_text(encoding="ascii").strip()
            kind = (device / "class").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if vendor == VENDOR_NVIDIA and kind.startswith(CLASS_DISPLAY):
            return Gpu("an NVIDIA graphics card")
    return None


def _printed(command: list[str]) -> str:
    """Return what a program prints, "" where it fails or does not answer."""
    try:
        done = run_quietly(command, ASK_S)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def run_quietly(command: Sequence[str], within_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program without a window and keep what it prints. Raises `OSError` or `subprocess.TimeoutExpired`."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=within_s,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
