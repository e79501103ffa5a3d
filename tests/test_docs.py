"""The documentation says what the code does: state tables, verbs, options, links."""

from __future__ import annotations

import random
import re
from dataclasses import fields
from pathlib import Path

import pytest

from camera_trap_al.config import aliases, option_fields
from camera_trap_al.config_file import tomllib
from camera_trap_al.core.steps import JOBS, STEPS, Facts
from camera_trap_al_service.cli import _parser

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def random_facts(rng: random.Random) -> Facts:
    values = {}
    for field in fields(Facts):
        kind = type(field.default)
        choices = {
            bool: [True, False],
            int: [0, 0, 1, 2],
            str: ["", "TRAIN"],
            tuple: [(), ("a.csv",)],
            float: [0, -1, 5],
        }[kind]
        values[field.name] = rng.choice(choices)
    values["listed"] = rng.choice([(-1, -1), (values["mark"], values["pool_version"])])
    values["placed"] = rng.choice([0, 1, 2, "finished"])
    return Facts(**values)


def documented(pattern: str) -> list[tuple[str, str]]:
    return re.findall(pattern, ARCHITECTURE, re.MULTILINE)


def check(rules: list[tuple[str, str]], code: tuple[object, ...]) -> None:
    rng = random.Random(0)
    assert [name for name, _ in rules] == [rule.name for rule in code]  # type: ignore[attr-defined]
    compiled = [(name, compile(expression, name, "eval")) for name, expression in rules]
    for _ in range(2000):
        facts = random_facts(rng)
        names = {field.name: getattr(facts, field.name) for field in fields(Facts)}
        for (name, expression), rule in zip(compiled, code, strict=True):
            assert bool(eval(expression, {}, names)) == bool(rule.when(facts)), f"{name}: {facts}"  # type: ignore[attr-defined]


def test_the_table_of_steps_is_the_one_in_the_code() -> None:
    check(documented(r"^\| \d+ \| ([A-Z_]+) \| `([^`]+)` \|"), STEPS)


def test_the_table_of_jobs_is_the_one_in_the_code() -> None:
    check(documented(r"^\| ([A-Z_]+) \| `([^`]+)` \| [^|]+ \| [^|]+ \|$"), JOBS)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")) + [ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_verb_is_in_the_readme() -> None:
    verbs = next(action.choices for action in _parser()._actions if action.choices)
    for verb in verbs:
        assert f"camera-trap-al {verb}" in README, verb


def test_every_command_of_the_readme_parses(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^camera-trap-al (.+)$", README, re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        _parser().parse_args(command.split())


def test_every_parameter_of_the_original_has_its_row_and_its_test() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \| (?:`([^`]*)`|[^|]+) \| `(\w+)` \|$", text, re.MULTILINE)
    options = option_fields()
    assert len(rows) == 28
    assert {name: key for name, key, _, _ in rows if name != "output_dir"} == {
        name: key for name, key in aliases().items() if name != "embedding_weights"
    }
    assert all(tomllib.loads(f"v = {value}")["v"] == options[key].default for _, key, value, _ in rows if value)
    tests = (ROOT / "tests" / "loop" / "test_parameters.py").read_text(encoding="utf-8")
    assert all(f"def {test}(" in tests for _, _, _, test in rows)
