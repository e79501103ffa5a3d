"""Names of files, classes and cells never break a line of a log, and never reach a terminal as codes."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest
from PIL import Image
from small_world import OPTIONS, contents, draw, make_world

from camera_trap_al.config_service import LogConfig
from camera_trap_al_service.cli import main
from camera_trap_al_service.logs import LONGEST_RECORD, LineFormatter, escaped, log_file
from camera_trap_al_service.progress import log_to_terminal

SMALL = LogConfig(max_mb=0.002)
EVIL = "a\x1b[2J\x1b]0;owned\x07\nlabels: took 9 of 9 from fake.csv\r\x9b31m\u202egpj.exe\u2028\udcff"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("camera_trap_al")
    handlers, level, own_level = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level = handlers, level
    own.setLevel(own_level)


def is_clean(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("camera_trap_al", logging.INFO, __file__, 1, message, arguments, None)


def test_a_record_is_one_line_whatever_names_stand_in_it() -> None:
    line = LineFormatter().format(record("labels: %s", EVIL))
    assert "\n" not in line and line.isprintable()
    assert "\\u001b[2J" in line and "\\n" in line and "\\u202e" in line and "\\udcff" in line


def test_a_name_in_another_script_stays_as_it_is() -> None:
    assert escaped("Hyène tachetée, ライオン, кабан 🦌") == "Hyène tachetée, ライオン, кабан 🦌"


def test_what_is_escaped_is_still_json() -> None:
    text = json.dumps({"name": "a\x7f\x9b\u202e\U000e0001"}, ensure_ascii=False)
    assert escaped(text).isascii() and json.loads(escaped(text)) == json.loads(text)


def test_a_traceback_is_indented_and_escaped() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        bad = record("failed")
        bad.exc_info = sys.exc_info()
    first, *rest = LineFormatter().format(bad).split("\n")
    assert first.endswith("failed") and rest and all(line.startswith("    | ") and line.isprintable() for line in rest)


def test_a_record_has_an_end() -> None:
    assert len(LineFormatter().format(record("%s", "x" * 10_000_000))) < LONGEST_RECORD + 100


def test_the_terminal_gets_no_codes(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_terminal()
    logging.getLogger("camera_trap_al.x").warning("image %s", EVIL)
    err = capsys.readouterr().err
    assert "image a\\u001b" in err and is_clean(err)


def test_a_log_that_another_program_holds_loses_no_line_and_no_older_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log" / "camera-trap-al.log"
    path.parent.mkdir()
    path.with_name("camera-trap-al.log.4").write_text("the oldest", encoding="utf-8")

    def held(handler: RotatingFileHandler, source: str, target: str) -> None:
        raise PermissionError(13, "held", source, None, target)

    monkeypatch.setattr(RotatingFileHandler, "rotate", held)
    with log_file(path, SMALL):
        for n in range(100):
            logging.getLogger("camera_trap_al").error("line %d %s", n, "x" * 30)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 100
    assert path.with_name("camera-trap-al.log.4").read_text(encoding="utf-8") == "the oldest"


def test_the_log_file_grows_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "log" / "camera-trap-al.log"
    with log_file(path, replace(SMALL, keep=2)):
        for n in range(500):
            logging.getLogger("camera_trap_al.x").warning("line %d %s", n, EVIL)
    files = sorted(path.parent.iterdir())
    assert len(files) == 3 and all(file.stat().st_size <= 2_000 for file in files)
    assert is_clean(path.read_text(encoding="utf-8")) and "line 499" in path.read_text(encoding="utf-8")


def test_no_log_file_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    with log_file(tmp_path / "log" / "camera-trap-al.log", LogConfig(file=False)):
        logging.getLogger("camera_trap_al").warning("something")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a right that few users have on Windows")
def test_a_link_in_the_place_of_the_log_is_replaced(tmp_path: Path) -> None:
    path, target = tmp_path / "log" / "camera-trap-al.log", tmp_path / "precious.txt"
    path.parent.mkdir()
    target.write_text("precious", encoding="utf-8")
    path.symlink_to(target)
    with log_file(path, LogConfig()):
        logging.getLogger("camera_trap_al.x").warning("something")
    assert target.read_text(encoding="utf-8") == "precious" and "something" in path.read_text(encoding="utf-8")


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log").write_bytes(b"a file in the place of the folder")
    with log_file(tmp_path / "log" / "camera-trap-al.log", LogConfig()):
        logging.getLogger("camera_trap_al.x").warning("something")
    assert "cannot be written" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no control characters in names")
def test_names_of_strangers_in_a_whole_season(
    tmp_path: Path,
    no_torch: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = EVIL.replace("\udcff", "").replace("/", "")
    work = make_world(tmp_path)
    for name in (f"{evil}.jpg", f"{evil}.txt", "=cmd|' C calc'!A0.jpg"):
        Image.new("RGB", (9, 9)).save(tmp_path / "pool" / name, format="JPEG")
    (tmp_path / "pool" / f"{evil}2.jpg").write_bytes(b"no image")
    with (work / "new_labels_bin" / f"{evil}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["File", "RelativePath", "Species"], [f"{evil}.jpg", evil, evil], ["red0.jpg", "", f"=1+1{evil}"]]
        )
    before = contents(tmp_path / "pool")
    assert main(["run", str(work), "--until", "idle"]) == 0
    assert main(["status", str(work)]) == 0
    assert main(["status", "--json", str(work)]) == 0
    assert main(["labels", str(work)]) == 0
    assert main(["check", str(work)]) == 0
    assert main(["check", str(work), str(work / "new_labels_bin" / f"{evil}.csv")]) in (0, 1)
    said = capsys.readouterr()
    assert is_clean(said.out) and is_clean(said.err)
    assert not any(line.startswith("labels: took 9") for line in (said.out + said.err).split("\n"))
    assert is_clean((work / "log" / "camera-trap-al.log").read_text(encoding="utf-8"))
    reports = [p for p in (work / "new_labels_bin").iterdir() if p.name.endswith(".report.txt")]
    assert reports and all(is_clean(p.read_text(encoding="utf-8-sig").replace("\r\n", "\n")) for p in reports)
    assert contents(tmp_path / "pool") == before
    selector = (work / "timelapse_selector.csv").read_text(encoding="utf-8")
    listed = (work / "data" / "labels.csv").read_text(encoding="utf-8")
    assert "cmd|" not in selector + listed and "owned" not in selector + listed


def test_init_says_names_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        draw(tmp_path / "train" / name / "1.jpg", "red")
    draw(tmp_path / "pool" / "1.jpg", "red")
    options = [f"-o{key}={value}" for key, value in OPTIONS.items()]
    folders = ["--train", str(tmp_path / "train"), "--unlabelled", str(tmp_path / "gone\x1b[2J")]
    assert main(["init", str(tmp_path / "work"), *folders, *options]) == 2
    assert is_clean(capsys.readouterr().err)
