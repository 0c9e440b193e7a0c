"""docs/equations.md cannot rot: what it names exists, and no equation and no function of a result is without a row."""

import ast
import importlib
import inspect
import pkgutil
import re
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tauflow.theory
from tauflow.theory import THEORIES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "equations.md"
TEXT = PAGE.read_text()
VERDICTS = ("holds", "condition", "corrected", "completed", "added", "step", "not implemented")
NUMBERED = {  # the last equation under each letter
    "schuessler2020": [("", 122)],
    "bordelon2025": [("", 5), ("A", 18), ("B", 15), ("C", 6), ("D", 47), ("E", 23), ("F", 17)],
    "pellegrino2023": [
        ("A.1.", 2),
        ("B.0.", 1),
        ("C.0.", 2),
        ("A.2.", 3),
        ("A.3.", 5),
        ("D.1.", 18),
        ("D.2.", 13),
        ("D.3.", 7),
        ("D.4.", 2),
    ],
}
LETTER = r"[A-Z]\.\d+\.|[A-Z]?"  # what goes before the number, such as A or D.2.


class Row(NamedTuple):
    """One row of a table: its paper, its cells, and what the last two of them name."""

    paper: str
    equations: str
    verdict: str
    form: str
    functions: list[tuple[str, str]]  # import path, link
    tests: list[tuple[str, str]]  # file, name


def rows(text: str) -> list[Row]:
    found, paper = [], ""
    for line in text.splitlines():
        if line.startswith("## "):
            paper = line[3:].strip()
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not (paper and line.startswith("|")) or cells[0] == "Eq." or set(cells[0]) == {"-"}:
            continue
        assert len(cells) == 5, f"a row has 5 cells, and none of them a vertical bar: {line}"
        equations, verdict, form, functions, tests = cells
        named = re.findall(r"\[`([\w.]+)`\]\(([^)]+)\)", functions)
        assert len(named) == functions.count("tauflow.") and tests.count("::") == len(_tests(tests)), line
        found.append(Row(paper, equations, verdict, form, named, _tests(tests)))
    return found


def _tests(cell: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/\w+\.py)::(test_\w+)`", cell)


def resolve(path: str) -> Any:
    """The object at an import path, of a module or a class in it; a package's own name goes before a module's."""
    parts = path.split(".")
    for cut in range(1, len(parts)):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
            found = attrgetter(".".join(parts[cut:]))(module)
        except (AttributeError, ModuleNotFoundError):
            continue
        return found.fget if isinstance(found, property) else found
    raise ModuleNotFoundError(path)


@cache
def functions_in(file: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}


def numbers(paper: str, text: str) -> set[str]:
    """The equations of a paper that have a row; 7–9 are three, and words after a number are a remark."""
    found: set[str] = set()
    for row in rows(text):
        for item in row.equations.split(",") if row.paper == paper else ():
            match = re.match(rf"\s*({LETTER})(\d+)(?:–({LETTER})(\d+))?(?:\s|$)", item)
            if match:
                letter, first, again, last = match.groups()
                assert again in (None, letter), item
                found |= {f"{letter}{k}" for k in range(int(first), int(last or first) + 1)}
    return found


def results() -> list[Any]:
    """Every public function of a theory module that says where its result is from, and every theory."""
    found = [type(theory) for theory in THEORIES]
    for module in pkgutil.iter_modules(tauflow.theory.__path__):
        loaded = importlib.import_module(f"tauflow.theory.{module.name}")
        own = [thing for thing in vars(loaded).values() if getattr(thing, "__module__", "") == loaded.__name__]
        public = [thing for thing in own if inspect.isfunction(thing) and not thing.__name__.startswith("_")]
        found += [thing for thing in public if "Source:" in (inspect.getdoc(thing) or "")]
    return found


def check_names(text: str) -> None:
    assert not re.search(r"\\[^A-Za-z]", text), "Markdown takes the backslash before a sign for its own"
    for row in rows(text):
        for path, link in row.functions:
            thing = inspect.unwrap(resolve(path))
            assert (PAGE.parent / link).resolve() == Path(inspect.getsourcefile(thing) or "").resolve(), (
                f"{path}: {link}"
            )
        for file, name in row.tests:
            assert name in functions_in(file), f"{file} has no {name}"


def check_rows(text: str) -> None:
    for row in rows(text):
        told = f"{row.paper}, {row.equations}"
        assert row.verdict in VERDICTS, f"{told}: {row.verdict}"
        assert row.tests or not row.functions, f"{told} has a function and no test"
        if row.verdict in ("corrected", "condition", "completed", "added", "not implemented"):
            assert row.form, f"{told} does not say what is wrong, wanted or missing"
        if row.verdict in ("step", "not implemented"):
            assert not row.functions, f"{told} is implemented"
        elif row.verdict in ("corrected", "added"):
            assert row.tests, f"{told} has no test that shows what is right"
        else:
            assert row.functions, f"{told} names no function"
        if row.verdict == "corrected":
            for path, _ in row.functions:
                thing = resolve(path)
                said = (inspect.getdoc(thing) or "") + (inspect.getdoc(inspect.getmodule(thing)) or "")
                assert "Deviation from print" in said, f"{path} does not say that it deviates from {told}"


def check_complete(text: str) -> None:
    for paper, lists in NUMBERED.items():
        missing = {f"{letter}{k}" for letter, last in lists for k in range(1, last + 1)} - numbers(paper, text)
        assert not missing, f"{paper} has no row for {sorted(missing)}"
    named = {id(inspect.unwrap(resolve(path))) for row in rows(text) for path, _ in row.functions}
    without = [thing.__name__ for thing in results() if id(inspect.unwrap(thing)) not in named]
    assert not without, f"docs/equations.md needs a row for {without}"


CHECKS = (check_names, check_rows, check_complete)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_page_of_equations(check):
    check(TEXT)


POWERS = "[`tauflow.theory.resolvent_traces.power_trace`](../src/tauflow/theory/resolvent_traces.py)"


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("theory.fixed_point.eigenvalue`", "theory.fixed_point.eigenvector`", check_names),
        ("theory/fixed_point_spread.py", "theory/fixed_point.py", check_names),
        ("::test_pairings_by_brute_force", "::test_pairings_by_guessing", check_names),
        ("| 33–37 | holds |", "| 33–37 | plausible |", check_rows),
        ("| 48 | holds |", "| 48 | step |", check_rows),
        ("| 33–37 |", "| 33–36 |", check_complete),
        (POWERS, POWERS.replace("power_trace", "word_trace"), check_complete),
    ],
)
def test_a_page_with_a_mistake_is_found(old, new, check):
    assert old in TEXT
    with pytest.raises((AssertionError, ModuleNotFoundError)):
        check(TEXT.replace(old, new))
