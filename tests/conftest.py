"""Makes `service/` importable by its installed name where the package was not installed; shares the season.

Also prints the figures that tests measured, one line each, at the end of a run.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

# The tests run in two processes; more threads than cores would slow both.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SERVICE = "camera_trap_al_service"

if importlib.util.find_spec(SERVICE) is None:
    folder = Path(__file__).resolve().parent.parent / "service"
    spec = importlib.util.spec_from_file_location(
        SERVICE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SERVICE] = module
    spec.loader.exec_module(module)

sys.path.insert(0, str(Path(__file__).resolve().parent))
from season import new_season, pictures  # noqa: E402, F401 - fixtures for all tests

LONG_FACTOR = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`: the same fault tests with larger counts."""
    parser.addoption("--long", action="store_true", help=f"fault tests with {LONG_FACTOR} times the counts")


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> int:
    """What counts of fault tests are multiplied by."""
    return LONG_FACTOR if pytestconfig.getoption("--long") else 1


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Return a function that notes a measured figure; the run prints it at its end."""
    return lambda name, text: record_property("figure", f"{name}: {text}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Escape file names that are no text in what a test printed: it could not be sent between processes."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode("utf-8")) for title, text in report.sections
    ]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measured figures."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    figures = [value for report in reports for name, value in report.user_properties if name == "figure"]
    for text in sorted(figures):
        terminalreporter.write_line(f"FIGURE {text}")
