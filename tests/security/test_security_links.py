"""Links and traps planted in a work folder: what they lead to is neither changed nor removed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_world import answer, contents, make_world, run

from camera_trap_al.errors import WorkFolderError
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object
from camera_trap_al.work import Work

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="making links needs a right that few users have on Windows"),
    pytest.mark.usefixtures("no_torch"),
]
REPLACED = (
    "timelapse_selector.csv",
    "timelapse_predictions.csv",
    "timelapse_recognitions.json",
    "status.json",
    "data/label_request.json",
    "data/labels.csv",
    "data/quarantine.csv",
    "data/conflicts.csv",
    "data/altered.csv",
    "data/estimates.json",
    "data/reported.json",
    "export/model.onnx",
    "export/embedding.onnx",
    "export/classifier.onnx",
    "export/classes.txt",
    "export/manifest.json",
    "test_results/learning_curve.csv",
    "new_labels_bin/labels.csv.receipt.json",
    "new_labels_bin/labels.csv.report.txt",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, no_torch: None) -> Path:
    """A work folder in the middle of its season, and the pictures beside it."""
    work = make_world(tmp_path_factory.mktemp("links"))
    run(work)
    return work


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(finished, tmp_path / "work", symlinks=True)
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "precious.txt").write_text("precious", encoding="utf-8")
    (outside / "folder" / "photo.jpg").write_bytes(b"a photograph")
    before = contents(outside)
    yield tmp_path / "work"
    assert contents(outside) == before, "something outside was changed"


@pytest.mark.slow
def test_files_of_ours_that_are_links_are_replaced_and_not_followed(work: Path) -> None:
    target = work.parent / "outside" / "precious.txt"
    names = [*REPLACED, *(str(atomic.partial_of(Path(name))) for name in REPLACED)]
    for name in names:
        path = work / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    (work / "timelapse_selector.csv").unlink()
    run(work)
    answer(work)
    run(work)
    with atomic.permitted(work):
        atomic.replace_json(work / "status.json", {})
    left = [name for name in REPLACED if (work / name).is_symlink() and not name.endswith(".report.txt")]
    assert left == []
    assert "precious" not in (work / "data" / "labels.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["intake", "new_labels_bin", "data", "export", "models", "embedding", "reports", "log"]
)
def test_a_folder_of_ours_that_is_a_link_is_refused_in_words(work: Path, name: str) -> None:
    shutil.rmtree(work / name, ignore_errors=True)
    (work / name).symlink_to(work.parent / "outside" / "folder")
    with pytest.raises(WorkFolderError, match=f"{name} is a link to another place.*Remove the link"):
        Work.open(work)


@pytest.mark.parametrize("name", ["data/journal.jsonl", "data/catalog.sqlite", "daemon.lock", "worker.lock"])
def test_the_journal_the_catalogue_and_the_locks_are_no_links(work: Path, name: str) -> None:
    (work / name).unlink(missing_ok=True)
    (work / name).symlink_to(work.parent / "outside" / "precious.txt")
    with pytest.raises(WorkFolderError, match="is a link to another place"):
        Work.open(work)


def test_a_folder_that_becomes_a_link_while_the_program_runs_is_not_written_through(work: Path) -> None:
    opened = Work.open(work)
    try:
        shutil.rmtree(work / "export")
        (work / "export").symlink_to(work.parent / "outside" / "folder")
        with pytest.raises(PermissionError, match="does not write there"):
            atomic.replace_bytes(work / "export" / "photo.jpg", b"ours")
        with pytest.raises(PermissionError):
            atomic.discard_file(work / "export" / "photo.jpg")
    finally:
        opened.close()


@pytest.mark.parametrize("name", [".trash-gen-000007", "gen-000099", ".gen-000002"])
@pytest.mark.parametrize("parent", ["models", "embedding", "checkpoints"])
def test_what_a_planted_folder_link_leads_to_is_never_removed(work: Path, parent: str, name: str) -> None:
    (work / parent / name).symlink_to(work.parent / "outside" / "folder")
    inner = work / parent / ".trash-gen-000008"
    inner.mkdir()
    (inner / "more").symlink_to(work.parent / "outside" / "folder")
    run(work)
    assert not inner.exists()


def test_removing_a_link_removes_the_link_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.jpg").write_bytes(b"a photograph")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    atomic.discard_folder(tmp_path / "link")
    assert not os.path.lexists(tmp_path / "link") and (tmp_path / "folder" / "photo.jpg").exists()


@pytest.mark.parametrize("name", ["data/label_request.json", "export/manifest.json", "export/check.json", "lease.json"])
def test_a_pipe_in_the_place_of_a_file_that_is_read_holds_nothing_up(work: Path, name: str) -> None:
    (work / name).unlink(missing_ok=True)
    os.mkfifo(work / name)
    with pytest.raises(ValueError, match="is no file"):
        read_object(work / name)


def test_a_private_copy_that_somebody_planted_is_not_read(work: Path) -> None:
    import hashlib

    answer(work)
    data = (work / "new_labels_bin" / "labels.csv").read_bytes()
    planted = work / "intake" / f"{hashlib.sha256(data).hexdigest()}.csv"
    os.mkfifo(planted)
    run(work)
    assert planted.read_bytes() == data


def test_a_linked_label_file_is_never_opened(work: Path) -> None:
    (work / "new_labels_bin" / "stolen.csv").symlink_to(work.parent / "outside" / "precious.txt")
    run(work)
    assert not (work / "new_labels_bin" / "stolen.csv.receipt.json").exists()


def test_a_work_folder_that_is_reached_by_a_link_works(work: Path, tmp_path: Path) -> None:
    (tmp_path / "by link").symlink_to(work)
    run(tmp_path / "by link")
    assert WorkFolder.at(tmp_path / "by link").may_write(tmp_path / "by link" / "export" / "model.onnx")
