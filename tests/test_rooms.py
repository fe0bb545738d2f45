"""Test the folders of the library: imports go one way, and files are few and short."""

import ast
from functools import lru_cache
from pathlib import Path

import pytest
from conftest import ROOT

SRC = ROOT / "src"
PACKAGE = SRC / "tunerank"
ORDER = [
    "core",
    "params",
    "data/readers",
    "data",
    "data/preparation",
    "models",
    "sources",
    "retrieval",
    "reranking",
    "samples",
    "evaluation",
    "training",
    "searching",
    ".",
    "provenance",
    "publishing",
    "serving",
    "commands",
]
"""A file may import from its own room and from earlier ones.

The room `.` has ranker.py, searcher.py and pretraining.py.
"""
FILES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))


def room(path: Path) -> str:
    return path.parent.relative_to(PACKAGE).as_posix()


@lru_cache
def imported(path: Path) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found = {SRC / f"{name.replace('.', '/')}.py" for name in names if name.startswith("tunerank")}
    return {path for path in found if path.exists()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_imports_from_its_own_room_and_earlier_ones(path):
    later = [
        other for other in imported(path) if ORDER.index(room(other)) > ORDER.index(room(path))
    ]
    assert later == []


def test_no_file_imports_itself_through_others():
    def reached(start: Path) -> set[Path]:
        seen, todo = set(), list(imported(start))
        while todo:
            path = todo.pop()
            if path not in seen:
                seen.add(path)
                todo += imported(path)
        return seen

    assert [path.name for path in FILES if path in reached(path)] == []


def test_rooms_have_an_empty_init_file():
    """Every stage that imports from a room would depend on the content of its __init__.py."""
    inits = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    assert len(inits) == len(ORDER) - 1 and all(not path.read_bytes() for path in inits)


def test_the_library_has_few_and_short_files():
    assert len(FILES) <= 125
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 250} == {}


@pytest.mark.parametrize("folder", ["src", "tests", "experiments", "benchmarks", "examples"])
def test_lines_fit_beside_another_file(folder):
    files = [*(ROOT / folder).rglob("*.py")]
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 100
    ]
    assert files and long == []
