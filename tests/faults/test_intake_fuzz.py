"""Thousands of made-up label files, and bytes at random: the program answers as the contract's second reading does.

All is made from the seeds named in the test ids; a failure prints the seed and the file.
"""

from __future__ import annotations

import codecs
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from contract_oracle import Key, World, differences, judge
from intake_world import answer_of, receipt_of

from camera_trap_al.labels.species_csv import Limits

pytestmark = pytest.mark.faults

FILES, INPUTS = 5_000, 20_000
PARTS = 4
NFD_FOLDER = unicodedata.normalize("NFD", "Zoë")
POOL: tuple[Key, ...] = (
    *(("S1", f"IMG_{i:04}.JPG") for i in range(8)),
    *(("S1/D2", f"IMG_{i:04}.JPG") for i in range(4)),
    ("", "IMG_0000.JPG"), ("", "root.JPG"), ("2023", "07.JPG"), ("NA", "x.JPG"), ("Forêt", "été.JPG"), (NFD_FOLDER, "a.JPG"),
    ("Case", "x.JPG"), ("Case", "X.JPG"), ("a b", "c d.JPG"), ("=1+1", "-x.JPG"), ("x,y", "p;q.JPG"),
)  # fmt: skip
CLASSES = (
    "deer",
    "fox",
    "Wild boar",
    "None",
    "NA",
    "null",
    "007",
    "7",
    "True",
    "café",
    "鹿",
    "a,b",
    "Bird",
    "Bird of prey",
)
UNKNOWN = ("dear", "wolf", "0", "7.0", "deer fox", "dеer", "de\u200ber", "unlabelled", "=deer", "nan", "?", "x" * 400)
WORLDS = (
    World(frozenset(POOL), CLASSES, frozenset(POOL[:-4]), held=frozenset({"training"})),
    World(frozenset(POOL), CLASSES, frozenset(POOL[:6]), unrequested="accept", labels={POOL[0]: "fox", POOL[1]: "deer"}),
    World(frozenset(POOL), CLASSES, frozenset(POOL), labels=dict.fromkeys(POOL[:9], "fox"), unlabel_token="__unlabel__",
          published={key: frozenset({"deer", "fox"}) for key in POOL}, skip_words=("unsure", "weiß nicht")),
    World(frozenset(POOL), CLASSES, frozenset(POOL), auto_add=True, auto_add_min=2, path_alias=(("C:\\img", ""),)),
    World(frozenset(POOL), CLASSES, frozenset(POOL), column="Art", published={POOL[2]: frozenset({"deer"})}),
)  # fmt: skip
BAD_PATHS = (
    ("/S1", "IMG_0000.JPG"), ("C:\\img\\S1", "IMG_0000.JPG"), ("..", "IMG_0000.JPG"), ("~", "root.JPG"), ("S9", "IMG_0000.JPG"),
    ("S1", "IMG_9999.JPG"), ("S1", ""), ("case", "x.jpg"), ("training/deer", "t.JPG"), ("http://a/S1", "IMG_0000.JPG"),
    ("\\\\s\\S1", "IMG_0000.JPG"), ("S1", "IMG_\x000.JPG"), ("S1/../..", "root.JPG"), ("S1/../S1", "IMG_0001.JPG"),
)  # fmt: skip


def spelled_path(rng: random.Random) -> tuple[str, str]:
    """Return the cells of a path, right or wrong."""
    if rng.random() < 0.12:
        return rng.choice(BAD_PATHS)
    folder, file = rng.choice(POOL)
    how = rng.randrange(14)
    changed = {
        0: (folder.replace("/", "\\"), file),
        1: (f".\\{folder}", file),
        2: (f"{folder}/" if folder else "", file),
        3: (f" {folder}\u00a0", f"\t{file} "),
        4: (folder.lower(), file),
        5: (folder, file.lower()),
        6: ("", f"{folder}/{file}" if folder else file),
        7: (unicodedata.normalize("NFD", folder), unicodedata.normalize("NFC", file)),
        8: (folder.replace("/", "//"), f"./{file}"),
    }
    return changed.get(how, (folder, file))


def spelled_label(rng: random.Random, world: World) -> str:
    """Return a label cell, right or wrong."""
    how = rng.random()
    if how < 0.15:
        return rng.choice(("", "", "", " ", "\u3000"))
    if how < 0.25:
        return rng.choice((*UNKNOWN, "de\ner", "de\x07er", world.unlabel_token or "unsure"))
    if how < 0.30:
        return rng.choice((*world.skip_words, world.skip_words[0].upper() + " "))
    name = rng.choice(CLASSES[:4] if rng.random() < 0.7 else CLASSES)
    return rng.choice((name, name, name, f" {name}", f"{name}\u00a0", name.upper(), unicodedata.normalize("NFD", name)))


def quoted(cell: str, delimiter: str, always: bool) -> str:
    """Return a cell as spreadsheets write it."""
    if always or any(char in cell for char in f'{delimiter}"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def label_file(rng: random.Random, world: World) -> bytes:
    """Return one made-up label file."""
    columns = ["File", "RelativePath", world.column]
    extra = ["DateTime", "Note", "Selected", "DeleteFlag", "Confirmed", "Prediction", "", "Note", "RootFolder"]
    columns += rng.sample(extra, rng.randrange(len(extra))) if rng.random() < 0.6 else []
    if rng.random() < 0.5:
        rng.shuffle(columns)
    if rng.random() < 0.04:
        columns.remove(rng.choice(["File", "RelativePath", world.column]))
    if rng.random() < 0.04:
        columns.append(rng.choice(["File", "RelativePath", world.column]))
    levels = rng.random() < 0.06
    columns = (
        ["Level-1", "Station", "RootFolder", *(c for c in columns if c and c != "RootFolder")] if levels else columns
    )
    delimiter, always = rng.choice(",,,;\t"), rng.random() < 0.15
    spell: Callable[[str], str] = rng.choice((str, str, str, str.upper, str.lower, lambda name: f" {name} "))
    lines = [delimiter.join(quoted(spell(name), delimiter, always) for name in columns)]
    for _ in range(rng.choice((0, 1, 2, 3, 5, 8, 13))):
        folder, file = spelled_path(rng)
        said = {
            "file": file, "relativepath": folder, world.column.casefold(): spelled_label(rng, world),
            "datetime": " 2024-09-17 18:44:56", "selected": "true",
            "note": rng.choice(("", "x", "one, two; three", 'say "moo"', "5\" tall", "a\r\nb", "'=1+1")),
            "deleteflag": rng.choice(("false", "false", "", "True")),
            "confirmed": rng.choice(("false", "", "TRUE")), "prediction": rng.choice(("deer", "fox ", "wolf", "")),
            "rootfolder": "root",
        }  # fmt: skip
        cells = [said.get(name.casefold(), "") for name in columns]
        how = rng.random()
        if how < 0.05 or (levels and how < 0.4):
            cells = cells[1:] if levels else cells[:-1]
        elif how < 0.10:
            cells += rng.choice(([""], ["", " "], ["more"], ["", "more"]))
        elif how < 0.13:
            cells = [name.upper() for name in columns]
        elif how < 0.17:
            cells = rng.choice(([""], [""] * len(columns), [""] * (len(columns) + 3), [" "]))
        lines.append(delimiter.join(quoted(cell, delimiter, always) for cell in cells))
    return encoded(rng, lines, delimiter)


def encoded(rng: random.Random, lines: list[str], delimiter: str) -> bytes:
    """Return lines as bytes, in one of the ways of the world."""
    ends = rng.choice((["\r\n"], ["\r\n"], ["\n"], ["\n", "\r\n"], ["\r\n", "\n\n"]))
    text = "".join(line + rng.choice(ends) for line in lines)
    if rng.random() < 0.08:
        text = f"sep={delimiter}\r\n{text}"
    if rng.random() < 0.08:
        text = rng.choice((text.rstrip("\r\n"), text + "\x1a", "\r\n" + text, text + delimiter * 3 + "\r\n"))
    if rng.random() < 0.03:
        text += '"unclosed'
    how = rng.random()
    if how < 0.15:
        return text.encode("utf-16")
    if how < 0.3:
        return text.encode("utf-8-sig")
    if how < 0.38:
        return text.encode("cp1252", "replace")
    return text.encode("utf-8") + (bytes(8) if how > 0.99 else b"")


@pytest.mark.parametrize("part", range(PARTS))
def test_made_up_label_files_are_answered_as_the_contract_says(
    part: int, long: int, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    path, n_files, n_labels = tmp_path / "labels.csv", FILES * long // PARTS, 0
    for number in range(n_files):
        seed = f"files {part} {number}"
        rng = random.Random(seed)
        world = WORLDS[number % len(WORLDS)]
        data = label_file(rng, world)
        path.write_bytes(data)
        answer = answer_of(receipt_of(path, world))
        n_labels += len(answer.images)
        found = differences(judge(data, world), answer)
        assert not found, f"seed {seed!r}\n" + "\n".join(found) + f"\n{data.decode('utf-8', 'backslashreplace')}"
    assert n_labels > n_files
    figure("intake fuzz", f"part {part}: {n_files} label files, {n_labels} images decided, 0 not as the contract says")


def mutated(rng: random.Random, good: list[bytes]) -> bytes:
    """Return a good file after a few accidents, or bytes at random."""
    data = bytearray(rng.choice(good))
    if rng.random() < 0.1:
        alphabet = rng.choice((bytes(range(256)), b',;\t"\r\n aFile', b"\0\xff\xfe\xef\xbb\xbf,\n"))
        return bytes(rng.choice(alphabet) for _ in range(rng.randrange(200)))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(7)
        if how == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[at : at + rng.choice((1, 1, 2, 9, 40, 10**6))]
        elif how == 2:
            data[at:at] = rng.choice(
                (b",", b'"', b'""', b"\n", b"\r", b"\0", b"\xff", b";", b"\t", b"\xc3", b"\x1a", b"\xef\xbb\xbf")
            )
        elif how == 3:
            other = rng.choice(good)
            data[at:] = other[rng.randrange(len(other)) :]
        elif how == 4:
            data[at:at] = data[max(0, at - 30) : at]
        elif how == 5:
            data[at:at] = bytes(rng.choice((1, 3, 300)))
        else:
            data[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(data)


def is_utf8(data: bytes) -> bool:
    """Return whether bytes are UTF-8, with a mark or without."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.startswith(codecs.BOM_UTF8)
    return True


def invented(data: bytes, images: dict[Key, tuple[str, ...]]) -> list[tuple[Key, tuple[str, ...]]]:
    """Return labels of images whose file name and species do not stand together in a line, or a quoted run of lines."""
    name = (
        "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8" if is_utf8(data) else "cp1252"
    )
    text = unicodedata.normalize("NFC", data.decode(name, "replace")).casefold()
    is_plain = '"' not in text and "\r" not in text.replace("\r\n", "")
    stretches = text.split("\n") if is_plain else [text.replace('"', "")]
    return [
        (key, said)
        for key, said in images.items()
        if said[0] == "label"
        and not any(unicodedata.normalize("NFC", key[1]).casefold() in s and said[1].casefold() in s for s in stretches)
    ]


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_bytes_neither_crash_nor_invent_a_label(
    part: int, long: int, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    path, n_inputs, n_labels, n_judged = tmp_path / "labels.csv", INPUTS * long // PARTS, 0, 0
    rng = random.Random(f"good {part}")
    worlds = {number: WORLDS[number % len(WORLDS)] for number in range(len(WORLDS))}
    good = {number: [label_file(rng, world) for _ in range(40)] for number, world in worlds.items()}
    limits = Limits(file_bytes=20_000, rows=30, cell_characters=500, line_characters=2_000)
    for number in range(n_inputs):
        seed = f"bytes {part} {number}"
        rng = random.Random(seed)
        world = worlds[number % len(WORLDS)]
        data = mutated(rng, good[number % len(WORLDS)])
        path.write_bytes(data)
        answer = answer_of(receipt_of(path, world, limits if number % 3 == 0 else None))
        n_labels += len(answer.images)
        if not answer.images:
            continue
        assert not invented(data, answer.images), f"seed {seed!r}: {data!r}"
        verdict = judge(data, world)
        if number % 3:
            n_judged += 1
            allowed = verdict.images
            beyond = {key: said for key, said in answer.images.items() if said not in allowed.get(key, ())}
            assert not beyond, f"seed {seed!r}: {beyond}\n{data!r}"
    assert n_labels > n_inputs // 2
    figure(
        "byte fuzz",
        f"part {part}: {n_inputs} inputs, 0 crashes, {n_labels} images decided, 0 labels that no line gives, "
        f"{n_judged} files judged twice alike",
    )
