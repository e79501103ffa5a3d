"""Makes `service/` importable by its installed name where the package was not installed; shares the season.

Also prints the figures that tests measured, one line each, at the end of a run; and keeps the fast suite fast.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from season import Season

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
# For `benchmarks`, which is not installed.
sys.path.append(str(Path(__file__).resolve().parent.parent))

LONG_FACTOR = 20
FAST_EXAMPLES = 25
ONE_PROCESS = (
    "tests/exporters/",
    "tests/learn/",
    "tests/security/test_security_models",
    "tests/security/test_security_tables",
)
"""Tests that all run in one and the same process, since what they import (torch, skl2onnx, matplotlib) takes seconds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`: the same fault tests with larger counts."""
    parser.addoption("--long", action="store_true", help=f"fault tests with {LONG_FACTOR} times the counts")


def pytest_configure(config: pytest.Config) -> None:
    """Have hypothesis measure no times, which are those of a busy machine, and try fewer examples in the fast suite."""
    from hypothesis import HealthCheck, settings

    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("fast", settings.get_profile("untimed"), max_examples=FAST_EXAMPLES)
    settings.load_profile("fast" if "not slow" in config.option.markexpr else "untimed")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Look for no garbage among what is imported to find the tests, then or later: that takes a tenth of all time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over the folder of the fault tests where they are not wanted: reading it takes a second."""
    return True if collection_path.name == "faults" and "not faults" in config.option.markexpr else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out tests by file, but those of `ONE_PROCESS` together."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "one process" if nodeid.startswith(ONE_PROCESS) else str(super()._split_scope(nodeid))

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def same_precision() -> None:
    """Let no other way to compute pay, however fast it happens to be: what is learned follows from the seed alone."""
    from camera_trap_al.learn import pace

    pace.PAYS, pace.MOST_ROUNDS = float("inf"), 0


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 60 pictures to label at three sites, 6 to train on, 12 for validation."""
    from season import draw_pictures

    return draw_pictures(tmp_path_factory.mktemp("season"))


@pytest.fixture
def new_season(pictures: Path, tmp_path: Path) -> Callable[..., Season]:
    """Return a maker of seasons; keyword arguments are options, `folders` the kinds of folder to use."""
    from season import make_season

    count: list[int] = []

    def make(folders: tuple[str, ...] = ("train", "validation"), **options: object) -> Season:
        count.append(1)
        return make_season(pictures, tmp_path / f"s{len(count)}", folders, options)

    return make


@pytest.fixture(scope="session")
def first_round(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Season:
    """Return a season whose first round is asked for, to be copied."""
    from season import make_season

    season = make_season(pictures, tmp_path_factory.mktemp("first") / "season", ("train", "validation"), {})
    season.turn()
    shutil.copytree(season.root, season.root.with_name("kept"))
    return season


@pytest.fixture
def season(first_round: Season) -> Season:
    """Return a season whose first round is asked for, always at the same place."""
    shutil.rmtree(first_round.root)
    shutil.copytree(first_round.root.with_name("kept"), first_round.root)
    return first_round


@pytest.fixture(scope="module")
def no_torch() -> Iterator[None]:
    """Have the numpy learner stand in for torch."""
    from faults.numpy_learner import install

    undo = install()
    yield
    undo()


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
