"""python -m benchmarks: measures each row, prints the table and says which figures fall short of their target."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import signal
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.children import PLACES, ROOT, in_order, minutes_for, run_here, run_in_child
from benchmarks.figures import Run
from benchmarks.machine import commit, machine, thread_settings, versions
from benchmarks.table import Earlier, Result, as_json, read_earlier, summary, table

SERVICE = "camera_trap_al_service"
STORED = Path(__file__).with_name("stored.json")
DATA = ROOT.parent / "shared" / "data" / "fullres"


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that are asked for; return 0, or 130 where a person interrupted them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    make_service_importable()
    given = _parser().parse_args(arguments)
    if given.child:
        return run_here(given.child, Run(given.folder, given.long, given.tiny, given.data), given.written)
    try:
        names = in_order(given.rows or PLACES)
        if unknown := [name for name in names if name not in PLACES]:
            raise ValueError(f"There is no row {', '.join(unknown)}; known are {', '.join(PLACES)}.")
        against = given.against or (STORED if STORED.is_file() else None)
        earlier = read_earlier(against) if against else None
        if given.json:
            given.json.touch()
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return _measure(names, given, earlier, str(against) if earlier else "")


def make_service_importable() -> None:
    """Give `service/` of this checkout its installed name, where the package is not installed."""
    if importlib.util.find_spec(SERVICE) is not None:
        return
    folder = ROOT / "service"
    spec = importlib.util.spec_from_file_location(
        SERVICE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules[SERVICE] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _measure(names: list[str], given: argparse.Namespace, earlier: Earlier | None, against: str) -> int:
    facts = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(ROOT),
        "machine": machine(),
        "versions": versions(),
        "threads": thread_settings(),
        "options": {"long": given.long, "tiny": given.tiny, "data": given.data.name if given.data else None},
    }
    started, results, is_interrupted = time.monotonic(), [], False
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-", dir=given.folder))
    try:
        for i, name in enumerate(names):
            spent = (time.monotonic() - started) / 60
            minutes = None if given.long else minutes_for(names[i:], spent)
            most = f"at most {minutes:.1f} min; " if minutes is not None else ""
            _say(f"{name} … ({most}{spent:.1f} min so far)")
            results.append(_run(name, folder, given, minutes))
            _say(table([results[-1]], earlier))
            if given.json:
                given.json.write_text(as_json(results, facts), encoding="utf-8")
            is_interrupted = results[-1].error.startswith("It was interrupted")
            if is_interrupted:
                break
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(results, facts, earlier, against, time.monotonic() - started)
    return 130 if is_interrupted else 0


def _run(name: str, folder: Path, given: argparse.Namespace, minutes: float | None) -> Result:
    mine = folder / name
    mine.mkdir()
    try:
        return run_in_child(name, Run(mine, given.long, given.tiny, given.data), minutes=minutes)
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def _print(results: list[Result], facts: dict[str, object], earlier: Earlier | None, against: str, s: float) -> None:
    here, libraries = facts["machine"], facts["versions"]
    assert isinstance(here, dict) and isinstance(libraries, dict)
    print(f"{here['cpu']}, {here['cores']} cores, {here['memory_gb']} GB, GPU: {here['gpu'] or 'none'}, {here['os']}")
    print(", ".join(f"{name} {version}" for name, version in libraries.items() if version))
    print(f"commit {facts['commit'] or 'unknown'}, {facts['when']}" + (f"; earlier: {against}" if against else ""))
    print()
    print(table(results, earlier))
    print()
    print(summary(results, s))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=lambda text: [name.strip() for name in text.split(",") if name.strip()])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--long", action="store_true", help="plain references at full size, however long they take")
    parser.add_argument("--tiny", action="store_true", help="sizes that measure nothing: only whether each row runs")
    parser.add_argument("--against", type=Path, metavar="FILE", help="an earlier --json FILE to compare with")
    parser.add_argument("--data", type=_folder, default=DATA if DATA.is_dir() else None, help="full-size photographs")
    parser.add_argument("--folder", type=_folder, help="where rows may write gigabytes; default: for temporary files")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--written", type=Path, help=argparse.SUPPRESS)
    return parser


def _folder(text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path}")
    return path


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    # A scheduler's way to say Ctrl-C: children and folders are not left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
