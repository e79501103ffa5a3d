"""Files that somebody with access to the share put where the program looks; and folders that lie in each other."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_world import OPTIONS, answer, contents, draw, make_world, run

from camera_trap_al.errors import UsageError
from camera_trap_al.labels.receipts import read_receipt
from camera_trap_al.store.json_files import MOST_BYTES, read_object
from camera_trap_al_service.cli import main
from camera_trap_al_service.init import init

DEEP = b'{"schema": "receipt/1", "rejected": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
GOOD = {
    "schema": "receipt/1",
    "file": "labels.csv",
    "sha256": "0" * 64,
    "mtime_ns": 1,
    "seq": 1,
    "time": "x",
    "verdict": "x",
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, no_torch: None) -> Iterator[Path]:
    work = make_world(tmp_path_factory.mktemp("strangers"))
    run(work)
    yield work


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b"null",
        DEEP,
        json.dumps(GOOD | {"seq": [1]}).encode(),
        json.dumps(GOOD | {"seq": "7"}).encode(),
        json.dumps(GOOD | {"mtime_ns": {"a": 1}}).encode(),
        json.dumps(GOOD | {"sha256": ["x"]}).encode(),
        json.dumps(GOOD | {"file": None}).encode(),
    ],
    ids=["empty", "zeros", "list", "null", "deep", "seq list", "seq text", "time", "hash", "name"],
)
def test_a_receipt_that_is_none_is_as_if_it_were_not_there(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "labels.csv.receipt.json").write_bytes(data)
    assert read_receipt(tmp_path, tmp_path, "labels.csv") is None


def test_a_huge_receipt_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "labels.csv.receipt.json").open("wb") as file:
        file.truncate(10_000_000_000)
    assert read_receipt(tmp_path, tmp_path, "labels.csv") is None


@pytest.mark.slow
def test_planted_receipts_and_facts_keep_no_label_out(started: Path) -> None:
    answer(started, "a.csv")
    source = started / "new_labels_bin" / "a.csv"
    facts = {"mtime_ns": source.stat().st_mtime_ns, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    planted = GOOD | {"file": "a.csv", "seq": 999_999, "verdict": "accepted", "remarks": "none"} | facts
    (started / "new_labels_bin" / "a.csv.receipt.json").write_text(json.dumps(planted), encoding="utf-8")
    for name in ("data/label_request.json", "export/manifest.json", "data/reported.json", "status.json"):
        (started / name).write_bytes(DEEP)
    for metrics in started.glob("test_results/*/metrics.json"):
        metrics.write_bytes(b'{"checkpoint": "=1", "accuracy": [], "macro_f1": {}}')
    assert main(["status", str(started)]) == 0
    run(started)
    text = (started / "data" / "labels.csv").read_text(encoding="utf-8")
    assert text.count(",red") + text.count(",green") == 4
    receipt = json.loads((started / "new_labels_bin" / "a.csv.receipt.json").read_text(encoding="utf-8"))
    assert receipt["seq"] != 999_999 and receipt["counts"]["accepted"] == 4


@pytest.mark.parametrize("data", [DEEP, b"[1]", b"{", b"\xff\xfe"])
def test_json_of_strangers_is_refused_at_once(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ValueError):
        read_object(tmp_path / "x.json")


def test_json_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ValueError, match="too large"):
        read_object(tmp_path / "x.json")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a right that few users have on Windows")
def test_a_linked_configuration_is_read_and_never_written_through(tmp_path: Path, no_torch: None) -> None:
    work = make_world(tmp_path)
    run(work)
    target = tmp_path / "theirs.toml"
    (work / "config.toml").rename(target)
    (work / "config.toml").symlink_to(target)
    before = target.read_bytes()
    (tmp_path / "pool").rename(tmp_path / "moved")
    assert main(["relocate", str(work), "--unlabelled", str(tmp_path / "moved")]) == 0
    assert target.read_bytes() == before and str(tmp_path / "moved") in (work / "config.toml").read_text(
        encoding="utf-8"
    )


def test_a_work_folder_in_the_image_root_is_left_out_of_the_search(tmp_path: Path, no_torch: None) -> None:
    for colour in ("red", "green"):
        for n in range(3):
            draw(tmp_path / "pool" / f"{colour}{n}.jpg", colour, 9 * n)
    work = tmp_path / "pool" / "work"
    options = [f"-o{key}={value}" for key, value in OPTIONS.items()]
    assert main(["init", str(work), "--unlabelled", str(tmp_path / "pool"), "-oclasses.names=red,green", *options]) == 0
    draw(work / "new_labels_bin" / "planted.jpg", "red")
    draw(work / "reports" / "planted.jpg", "red")
    outside = {name: sha for name, sha in contents(tmp_path / "pool").items() if not name.startswith("work/")}
    run(work)
    assert "planted" not in (work / "timelapse_selector.csv").read_text(encoding="utf-8")
    after = {name: sha for name, sha in contents(tmp_path / "pool").items() if not name.startswith("work/")}
    assert after == outside


@pytest.mark.parametrize("place", ["photos", "photos/deep"])
def test_an_image_root_in_its_own_work_folder_is_refused(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    draw(work / place / "1.jpg", "red")
    before = contents(tmp_path)
    assert main(["init", str(work), "--unlabelled", str(work / place)]) == 2
    assert "is there and not empty" in capsys.readouterr().err
    # A caller that makes its work folder where other things lie is refused too.
    with pytest.raises(UsageError, match="holds the images in"):
        init(work, {"data.unlabelled": str(work / place)}, OPTIONS, among_others=True)
    assert contents(tmp_path) == before
