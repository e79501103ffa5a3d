"""Images in folders by species: originals are safe, nothing is overwritten, and names suit every system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.observed import Detection, Named, ObservedImage
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import DiskFullError, UsageError
from camera_trap_al.exporters.safe_names import MOST_BYTES, SafeNames, safe_name
from camera_trap_al.exporters.sorting import Sorted, sort_into
from camera_trap_al.store import atomic

FOUND = {
    "s1/fox.jpg": "fox",
    "s1/deep/fox.jpg": "fox",
    "s2/fox.jpg": "fox",
    "top.jpg": "a/b",
    "s1/none.jpg": "",
    "s1/unsure.jpg": "deer?",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images, each of its own content and time."""
    for n, path in enumerate([*FOUND, "s1/person.jpg", "s1/car.jpg", "s1/broken.jpg"]):
        file = tmp_path / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"picture {path}".encode())
        os.utime(file, ns=(10**18 + n, 10**18 + n))
    return tmp_path / "images"


def images() -> Iterator[ObservedImage]:
    for path, species in FOUND.items():
        named = (Named(species, 0.5 if species.endswith("?") else 0.9),) if species else ()
        yield ObservedImage(ImageKey.of(path), (Detection("animal", 0.9),) if species else (), named=named)
    boxes = Detection("animal", 0.9, named=(Named("fox", 0.9),)), Detection("vehicle", 0.3), Detection("person", 0.2)
    yield ObservedImage(ImageKey.of("s1/person.jpg"), boxes, named=(Named("fox", 0.9),))
    yield ObservedImage(ImageKey.of("s1/car.jpg"), boxes[:2])
    yield ObservedImage(ImageKey.of("s1/broken.jpg"), problem="cut off")
    yield ObservedImage(ImageKey.of("s1/gone.jpg"), named=(Named("fox", 0.9),))


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def sort(folder: Path, root: Path, **options: object) -> Sorted:
    before = tree(root)
    try:
        return sort_into(folder, root, images(), min_confidence=0.7, **options)  # type: ignore[arg-type]
    finally:
        assert tree(root) == before


def test_each_image_is_copied_into_the_folder_of_its_species(root: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    result = sort(tmp_path / "out", root, on_progress=lambda done, total: told.append((done, total)))
    found = tree(tmp_path / "out")
    assert {path: content for path, (content, _) in found.items()} == {
        "fox/s1/fox.jpg": b"picture s1/fox.jpg",
        "fox/s1/deep/fox.jpg": b"picture s1/deep/fox.jpg",
        "fox/s2/fox.jpg": b"picture s2/fox.jpg",
        "a_b/top.jpg": b"picture top.jpg",
        "empty/s1/none.jpg": b"picture s1/none.jpg",
        "unknown/s1/unsure.jpg": b"picture s1/unsure.jpg",
        "person/s1/person.jpg": b"picture s1/person.jpg",
        "vehicle/s1/car.jpg": b"picture s1/car.jpg",
    }
    assert all(time == (root / path.partition("/")[2]).stat().st_mtime_ns for path, (_, time) in found.items())
    assert result.by_folder == {"a_b": 1, "empty": 1, "fox": 3, "person": 1, "unknown": 1, "vehicle": 1}
    assert (result.n_copied, result.n_linked, result.n_there, result.why_copied) == (8, 0, 0, "")
    assert result.left_out == ("s1/broken.jpg", "s1/gone.jpg")
    assert told[-1] == (8, 8)


def test_links_are_further_names_of_the_same_files(root: Path, tmp_path: Path) -> None:
    result = sort(tmp_path / "out", root, link=True)
    assert (result.n_copied, result.n_linked, result.why_copied) == (0, 8, "")
    assert (tmp_path / "out" / "fox" / "s2" / "fox.jpg").samefile(root / "s2" / "fox.jpg")


def test_where_links_cannot_be_made_images_are_copied_and_it_is_said_why(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, path: Path) -> None:
        raise OSError(18, "Invalid cross-device link", str(source))

    monkeypatch.setattr(atomic, "link_file", refuse)
    result = sort(tmp_path / "out", root, link=True)
    assert (result.n_copied, result.n_linked, result.why_copied) == (8, 0, "Invalid cross-device link")


def test_a_second_call_goes_on_where_the_first_was_cut_off(root: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sort(tmp_path / "out", root, on_progress=stop)
    assert len(tree(tmp_path / "out")) == 3
    result = sort(tmp_path / "out", root)
    assert (result.n_copied, result.n_there) == (5, 3) and len(tree(tmp_path / "out")) == 8
    assert sort(tmp_path / "out", root, link=True).n_there == 8


@pytest.mark.slow
def test_a_kill_at_any_operation_leaves_what_the_next_call_completes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(atomic.failpoints, "mode", "raise")
    monkeypatch.setattr(atomic.failpoints, "exception", Killed())
    for n in range(1, 60):
        monkeypatch.setattr(atomic.failpoints, "count", 0)
        monkeypatch.setattr(atomic.failpoints, "fail_at", n)
        with pytest.raises(Killed):
            sort(tmp_path / f"out{n}", root)
        monkeypatch.setattr(atomic.failpoints, "fail_at", 0)
        result = sort(tmp_path / f"out{n}", root)
        assert result.n_copied + result.n_there == 8
        assert {path: content for path, (content, _) in tree(tmp_path / f"out{n}").items()}.keys() == {
            f"{folder}/{path}"
            for folder, path in [
                ("fox", "s1/fox.jpg"),
                ("fox", "s1/deep/fox.jpg"),
                ("fox", "s2/fox.jpg"),
                ("a_b", "top.jpg"),
                ("empty", "s1/none.jpg"),
                ("unknown", "s1/unsure.jpg"),
                ("person", "s1/person.jpg"),
                ("vehicle", "s1/car.jpg"),
            ]
        }


@pytest.mark.parametrize("other", ["of another size", "picture s2/FOX.jpg", None])
def test_a_different_file_of_the_same_name_is_refused_before_anything_is_copied(
    root: Path, tmp_path: Path, other: str | None
) -> None:
    there = tmp_path / "out" / "fox" / "s2" / "fox.jpg"
    there.parent.mkdir(parents=True)
    if other is None:
        there.symlink_to(root / "s2" / "fox.jpg")
    else:
        there.write_text(other, encoding="utf-8")
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="Nothing was copied") as caught:
        sort(tmp_path / "out", root)
    assert str(there) in str(caught.value) and tree(tmp_path / "out") == before


@pytest.mark.parametrize("inside", ["", "sorted", "s1/sorted", "../images/sorted", "../link/sorted"])
def test_a_folder_among_the_images_is_refused_and_it_is_said_why(root: Path, tmp_path: Path, inside: str) -> None:
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    with pytest.raises(UsageError, match="Timelapse would load the copies"):
        sort(root / inside, root)


def test_a_folder_around_the_images_or_none_at_all_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="among the originals"):
        sort(tmp_path, root)
    with pytest.raises(UsageError, match="no folder"):
        sort(tmp_path / "away" / "out", root)
    with pytest.raises(UsageError, match="is a file"):
        sort(root / "top.jpg", root / "s1")


def test_a_link_in_the_folder_that_leads_to_the_originals_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fox").symlink_to(root / "s2", target_is_directory=True)
    with pytest.raises(UsageError, match="link into the folder of the images"):
        sort(tmp_path / "out", root)


def test_too_little_space_is_said_before_anything_is_copied(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "free_bytes", lambda path: 99_000_000)
    with pytest.raises(DiskFullError, match="99 MB free"):
        sort(tmp_path / "out", root)
    assert not (tmp_path / "out").exists()
    assert sort(tmp_path / "out", root, link=True).n_linked == 8


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("fox", "fox"),
        ("Lynx rufus", "Lynx rufus"),
        ("bird?/owl", "bird__owl"),
        ("con", "_con"),
        ("NUL.jpg", "_NUL.jpg"),
        ("deer. ", "deer"),
        ("..", "_"),
        (".hidden", "_.hidden"),
        ("лиса", "лиса"),
    ],
)
def test_names_suit_windows(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_names_that_windows_takes_for_one_get_numbers() -> None:
    names = SafeNames()
    paths = [("Fox", "a.jpg"), ("fox", "a.jpg"), ("Fox", "A.JPG"), ("f?x", "a.jpg"), ("f*x", "a.jpg"), ("fox", "b.jpg")]
    assert [names.of(path) for path in paths] == [
        ("Fox", "a.jpg"),
        ("fox (2)", "a.jpg"),
        ("Fox", "A (2).JPG"),
        ("f_x", "a.jpg"),
        ("f_x (2)", "a.jpg"),
        ("fox (2)", "b.jpg"),
    ]


@given(st.lists(st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple), max_size=8, unique=True))
def test_whatever_the_names_they_are_safe_and_different(paths: list[tuple[str, ...]]) -> None:
    names = SafeNames()
    found = ["/".join(names.of(path)).casefold() for path in paths]
    assert len(set(found)) == len(paths)
    for part in (part for path in found for part in path.split("/")):
        assert part.strip(" .") and not part.startswith((".", " ")) and not part.endswith((".", " "))
        assert not set(part) & set('<>:"\\|?*\0') and len(part.encode("utf-8", "surrogatepass")) <= 2 * MOST_BYTES
