"""Path to image and label text to class (docs/reliability.md 2.3 and 2.4)."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.matching import (
    KnownClasses,
    KnownImages,
    RootShift,
    clashing_names,
    class_name_problem,
    edit_distance,
    normal_key,
    shown,
)
from camera_trap_al.core.records import ImageKey

POOL = [
    ImageKey("S1", "IMG_1.JPG"),
    ImageKey("S1/D2", "IMG_2.JPG"),
    ImageKey("", "root.jpg"),
    ImageKey("2023", "007.JPG"),
    ImageKey("NA", "NA.jpg"),
    ImageKey("Forêt", "é.jpg"),
    ImageKey("mac", unicodedata.normalize("NFD", "ü.jpg")),
    ImageKey("twins", "a.JPG"),
    ImageKey("twins", "A.jpg"),
    ImageKey("~old", "x.jpg"),
]
IMAGES = KnownImages(POOL)

FOUND = {
    "as written": ("S1", "IMG_1.JPG", POOL[0], ""),
    "backslashes": ("S1\\D2", "IMG_2.JPG", POOL[1], ""),
    "mixed separators": (".\\S1/D2", "IMG_2.JPG", POOL[1], ""),
    "a trailing slash": ("S1/D2/", "IMG_2.JPG", POOL[1], ""),
    "a leading dot": ("./S1", "IMG_1.JPG", POOL[0], ""),
    "double slashes": ("S1//D2", "IMG_2.JPG", POOL[1], ""),
    "a detour that stays inside": ("S1/D2/..", "IMG_1.JPG", POOL[0], ""),
    "an image in the root": ("", "root.jpg", POOL[2], ""),
    "a dot for the root": (".", "root.jpg", POOL[2], ""),
    "a folder that looks like a number": ("2023", "007.JPG", POOL[3], ""),
    "a folder that looks like a missing value": ("NA", "NA.jpg", POOL[4], ""),
    "letters in the other Unicode form": (unicodedata.normalize("NFD", "Forêt"), "é.jpg", POOL[5], ""),
    "an image whose own name has the other form": ("mac", "ü.jpg", POOL[6], ""),
    "the whole path in File": ("", "S1\\D2\\IMG_2.JPG", POOL[1], "path_in_file"),
    "other upper and lower case": ("s1/d2", "img_2.jpg", POOL[1], "case"),
    "exactly, where another differs in case only": ("twins", "a.JPG", POOL[7], ""),
    "a folder that begins with a tilde and is there": ("~old", "x.jpg", POOL[9], ""),
}


@pytest.mark.parametrize(("folder", "file", "key", "note"), FOUND.values(), ids=FOUND.keys())
def test_an_image_is_found(folder: str, file: str, key: ImageKey, note: str) -> None:
    assert IMAGES.match(folder, file)[:3] == (key, "", note)
    assert IMAGES.match(folder, file)[:3] == (key, "", note), "the second time too"


LOST = {
    "an absolute path": ("/data/S1", "IMG_1.JPG", "bad_path"),
    "a drive": ("C:\\S1", "IMG_1.JPG", "bad_path"),
    "a drive without slash": ("C:S1", "IMG_1.JPG", "bad_path"),
    "a network name": ("\\\\server\\share\\S1", "IMG_1.JPG", "bad_path"),
    "a URL": ("https://host/S1", "IMG_1.JPG", "bad_path"),
    "a file URL in File": ("", "file:/S1/IMG_1.JPG", "bad_path"),
    "a drive in File": ("S1", "D:\\IMG_1.JPG", "bad_path"),
    "a home folder": ("~/S1", "IMG_1.JPG", "bad_path"),
    "a way out of the root": ("../S1", "IMG_1.JPG", "bad_path"),
    "a way out and in again": ("S1/../../S1", "IMG_1.JPG", "bad_path"),
    "no file name": ("S1/IMG_1.JPG", "", "bad_path"),
    "an image that is not there": ("S1", "IMG_9.JPG", "unknown_image"),
    "a folder that is not there": ("S9", "IMG_1.JPG", "unknown_image"),
    "two images but for upper and lower case": ("twins", "A.JPG", "ambiguous_image"),
    "a look-alike letter": ("S1", "IMG_1.JРG", "unknown_image"),
}


@pytest.mark.parametrize(("folder", "file", "code"), LOST.values(), ids=LOST.keys())
def test_an_image_is_not_found(folder: str, file: str, code: str) -> None:
    match = IMAGES.match(folder, file)
    assert (match.key, match.code) == (None, code)
    assert (match.named is None) == (code == "bad_path")


NEAREST = {
    "a slip in the name": (ImageKey("S1", "IMG_l.JPG"), "S1/IMG_1.JPG"),
    "a slip in the folder": (ImageKey("S1/D3", "IMG_2.JPG"), "S1/D2/IMG_2.JPG"),
    "a folder in both": (ImageKey("Foret", "e.jpg"), "Forêt/é.jpg"),
    "nothing like it": (ImageKey("somewhere", "else.png"), ""),
}


@pytest.mark.parametrize(("key", "path"), NEAREST.values(), ids=NEAREST.keys())
def test_the_nearest_image_is_named(key: ImageKey, path: str) -> None:
    assert IMAGES.nearest(key) == path


ALIASES = {
    "a drive": ("D:\\Traps\\=", "d:/traps/S1", "IMG_1.JPG"),
    "a leading folder too much": ("Season1=", "Season1\\S1", "IMG_1.JPG"),
    "a leading folder missing": ("=S1", "D2", "IMG_2.JPG"),
    "one folder for another": ("Station1=S1", "Station1", "IMG_1.JPG"),
}


@pytest.mark.parametrize(("alias", "folder", "file"), ALIASES.values(), ids=ALIASES.keys())
def test_an_alias_leads_to_the_image(alias: str, folder: str, file: str) -> None:
    assert KnownImages(POOL, [alias]).knows(folder, file)
    assert not IMAGES.knows(folder, file)


def test_an_alias_does_not_open_a_way_out() -> None:
    assert KnownImages(POOL, ["=S1"]).match("..", "root.jpg").code == "bad_path"
    assert KnownImages(POOL, ["D:/Traps="]).match("D:/Traps/../..", "root.jpg").code == "bad_path"
    assert KnownImages(POOL, ["D:/Traps="]).match("D:/TrapsS1", "IMG_1.JPG").code == "bad_path"


SHIFTS = {
    "one folder too much": (["X/S1/IMG_1.JPG", "X/root.jpg"], "X="),
    "two folders too much": (["X/Y/S1/IMG_1.JPG", "X/Y/root.jpg"], "X/Y="),
    "one folder missing": (["IMG_1.JPG", "D2/IMG_2.JPG"], "=S1"),
    "a folder too much in some rows only": (["X/S1/IMG_1.JPG", "Y/root.jpg"], ""),
    "a row that fits nowhere": (["X/S1/IMG_1.JPG", "X/none.jpg"], ""),
    "a path that cannot be used": (["X/S1/IMG_1.JPG", "../x"], ""),
    "no row": ([], ""),
}


@pytest.mark.parametrize(("paths", "alias"), SHIFTS.values(), ids=SHIFTS.keys())
def test_a_template_saved_in_another_folder_is_recognised(paths: list[str], alias: str) -> None:
    shift = RootShift(IMAGES)
    for path in paths:
        shift.add(normal_key("", path))
    assert shift.alias() == alias


@given(st.sets(st.text(st.sampled_from("aAäÄ./\\~:é "), min_size=1, max_size=6), max_size=6))
def test_every_image_of_the_pool_is_found_as_it_is_written(paths: set[str]) -> None:
    keys = {key for key in map(ImageKey.of, paths) if key.file}
    images = KnownImages(keys)
    assert all(images.match(*key)[:2] == (key, "") for key in keys)
    assert len(images) == len(keys)


CELLS = st.tuples(st.sampled_from(["", "a", "A", "b", "a\\b", "./a", "é", "e\u0301"]), st.sampled_from("xXyz"))


@given(pool=st.sets(CELLS), rows=st.lists(CELLS, max_size=8), alias=st.sampled_from([[], ["=a"], ["a=b"]]))
def test_what_was_matched_before_changes_no_match(
    pool: set[tuple[str, str]], rows: list[tuple[str, str]], alias: list[str]
) -> None:
    keys = [ImageKey(*cells) for cells in sorted(pool)]
    images = KnownImages(keys, alias)
    for row in rows:
        assert images.match(*row) == KnownImages(reversed(keys), alias).match(*row)


@given(st.text(st.sampled_from("ab./\\"), max_size=12), st.text(st.sampled_from("ab./\\"), max_size=6))
def test_a_key_never_leaves_the_root(folder: str, file: str) -> None:
    key = normal_key(folder, file)
    if key is not None:
        assert key.file and not {"", ".", ".."} & set(key.path.split("/"))
        assert normal_key(*key) == key


CLASSES = KnownClasses(
    ["deer", "Fox", "Bird of prey", "None", "007", "écureuil", "Wild boar"],
    skip_words=("unsure", "weiß nicht"),
    reserved=("unlabelled", "todo"),
    unlabel_token="__unlabel__",
)
MEANT = {
    "the class itself": ("deer", "class", "deer", True),
    "a class called None": ("None", "class", "None", True),
    "a class that looks like a number": ("007", "class", "007", True),
    "outer blanks": (" deer\u3000", "class", "deer", False),
    "another case": ("fox", "class", "Fox", False),
    "the other Unicode form": (unicodedata.normalize("NFD", "écureuil"), "class", "écureuil", False),
    "a skip word": ("Unsure ", "skip", "", True),
    "a skip word of another language": ("WEISS NICHT", "skip", "", True),
    "the unlabel token": ("__unlabel__", "unlabel", "", True),
    "the unlabel token in other case": ("__UNLABEL__", "unknown", "", True),
    "unlabelled": ("Unlabelled", "reserved", "", True),
    "another reserved word": ("todo", "reserved", "", True),
    "another number": ("7", "unknown", "", True),
    "a decimal number": ("7.0", "unknown", "", True),
    "a look-alike letter": ("dеer", "unknown", "", True),
    "a zero-width character": ("de\u200ber", "unknown", "", True),
    "a beginning": ("Bird", "unknown", "", True),
    "two classes": ("deer,Fox", "unknown", "", True),
}


@pytest.mark.parametrize(("text", "kind", "name", "is_exact"), MEANT.values(), ids=MEANT.keys())
def test_a_label_text_means(text: str, kind: str, name: str, is_exact: bool) -> None:
    assert CLASSES.match(text) == (kind, name, is_exact)


def test_a_class_that_is_called_like_a_skip_word_is_a_class() -> None:
    assert KnownClasses(["Unsure"]).match("unsure").name == "Unsure"


def test_no_unlabel_token_is_the_default() -> None:
    assert KnownClasses(["deer"]).match("__unlabel__").kind == "unknown"


SUGGESTED = {
    "dear": ("deer",),
    "Wild bore": ("Wild boar",),
    "Bird": ("Bird of prey",),
    "fxo": ("Fox",),
    "lynx": (),
    "7": (),
    "x" * 100_000: (),
}


@pytest.mark.parametrize(("text", "names"), SUGGESTED.items())
def test_a_slip_is_answered_with_likely_classes(text: str, names: tuple[str, ...]) -> None:
    assert CLASSES.suggest(text) == names


def test_at_most_three_classes_are_suggested_nearest_first() -> None:
    classes = KnownClasses(["red fox", "red deer", "red boar", "red bear", "reb deer"])
    assert classes.suggest("red dear") == ("red deer", "red bear", "red boar")


@pytest.mark.parametrize("text", ["deer,Fox", "fox; Deer", "deer and fox", "deer/fox / deer"])
def test_several_classes_in_one_cell_are_recognised(text: str) -> None:
    assert set(CLASSES.parts(text)) == {"deer", "Fox"}


@pytest.mark.parametrize("text", ["deer", "deer, deer", "deer,lynx", "lynx/x", ""])
def test_one_class_is_not_several(text: str) -> None:
    assert CLASSES.parts(text) == ()


def slow_distance(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    same = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(same, slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1)


@given(st.text("abc", max_size=5), st.text("abc", max_size=5), st.integers(0, 3))
def test_the_edit_distance_is_that_of_the_slow_way(a: str, b: str, at_most: int) -> None:
    assert edit_distance(a, b, at_most=at_most) == min(slow_distance(a, b), at_most + 1)


PROBLEMS = {
    "": "empty",
    " \u3000": "empty",
    "de\ner": "control character",
    "de\0er": "control character",
    "unlabelled": "reserved",
    " UNLABELLED": "reserved",
    "x" * 301: "300",
    "d\ufffder": "could not be read",
}


@pytest.mark.parametrize(("name", "words"), PROBLEMS.items())
def test_a_name_that_cannot_be_a_class_is_told_why(name: str, words: str) -> None:
    assert words in str(class_name_problem(name))


@pytest.mark.parametrize("name", ["deer", "None", "007", "../x", "=1+1", "x" * 300, "Reh / Hirsch"])
def test_any_other_word_can_be_a_class(name: str) -> None:
    assert class_name_problem(name) is None


def test_class_names_that_differ_too_little_are_named_in_pairs() -> None:
    names = ["deer", "Fox", "Deer ", "fox", "lynx", unicodedata.normalize("NFD", "é"), "É", "deer"]
    assert clashing_names(names) == [("deer", "Deer "), ("Fox", "fox"), (unicodedata.normalize("NFD", "é"), "É")]


def test_a_shown_text_is_printable_and_short() -> None:
    assert shown("a\0b\u200b\x1b[31m") == "a\\x00b\\u200b\\x1b[31m"
    assert len(shown("x" * 10_000)) == 201
