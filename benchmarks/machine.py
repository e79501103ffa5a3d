"""On what machine, with which versions and how many threads figures were measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from camera_trap_al.engine import usable_cores

LIBRARIES = ("camera_trap_al", "torch", "torchvision", "numpy", "scikit-learn", "onnxruntime", "pillow", "pandas")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def machine() -> dict[str, Any]:
    """Return processor, cores (those that this process may use), memory in GB, system, and the GPU or None."""
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "memory_gb": _memory_gb(),
        "os": platform.platform(),
        "gpu": _said_by("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"),
    }


def versions() -> dict[str, str | None]:
    """Return the version of Python and of each library; None for one that is not installed as a package."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def thread_settings() -> dict[str, str]:
    """Return what of the environment sets numbers of threads."""
    return {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}


def threads_in_use() -> dict[str, int]:
    """Return the threads that torch and the libraries of matrix products would use in this process now."""
    counts = {}
    if "torch" in sys.modules:
        counts["torch"] = sys.modules["torch"].get_num_threads()
    from threadpoolctl import threadpool_info

    for pool in threadpool_info():
        counts[str(pool["internal_api"])] = int(pool["num_threads"])
    return counts


def commit(root: Path) -> str | None:
    """Return the commit of a checkout, with `+` where files differ from it; None where there is none."""
    name = _said_by("git", "-C", str(root), "rev-parse", "HEAD")
    if name is None:
        return None
    return name + ("+" if _said_by("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no") else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return _said_by("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    if hasattr(os, "sysconf"):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    said = _said_by(
        "powershell", "-NoProfile", "-Command", "(Get-CimInstance Win32_ComputerSystem).TotalPhysicalMemory"
    )
    return round(int(said) / 1e9, 1) if said and said.isdigit() else None


def _said_by(*command: str) -> str | None:
    """Return what a program prints, or None where there is none, or it fails or prints nothing."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
