"""Check examples in docstrings, and length, files, links and translation of the pages."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
from commands import PAGES, page_commands
from conftest import ROOT

SRC = ROOT / "src"
WITH_EXAMPLES = ["commands"] + [
    ".".join(path.relative_to(SRC).with_suffix("").parts)
    for path in sorted(SRC.glob("tunerank/**/*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


def test_all_modules_with_examples_are_found():
    assert len(WITH_EXAMPLES) >= 14


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_work(module):
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert failed == 0 and tried > 0


WORDS = {"README.md": 900, "docs/*.md": 700}
"""The maximum number of words of a page: prose, tables and code, as `wc -w` counts them."""

ALL_WORDS = 7800
"""The maximum number of words of all pages in docs/, 800 of them for searching and serving."""


def words(page: Path) -> int:
    return len(page.read_text(encoding="utf-8").split())


def test_no_page_is_longer_than_its_limit():
    counted = {
        page.relative_to(ROOT).as_posix(): (words(page), most)
        for pattern, most in WORDS.items()
        for page in sorted(ROOT.glob(pattern))
    }
    assert len(counted) > 10
    assert {name: (count, most) for name, (count, most) in counted.items() if count > most} == {}
    assert sum(count for name, (count, _) in counted.items() if name != "README.md") <= ALL_WORDS


def headings(text: str) -> list[str]:
    """Return the levels of a page's headings, which do not depend on its language."""
    return re.findall(r"^(#+) ", re.sub(r"(?ms)^```.*?^```$", "", text), re.MULTILINE)


def figures(text: str) -> list[list[str]]:
    """Return the numbers of each row of a page's tables."""
    rows = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    return [numbers for row in rows if (numbers := re.findall(r"[-+]?\d+\.\d+", row))]


def test_the_chinese_readme_has_the_same_sections_commands_tables_and_links():
    english, chinese = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
    )
    assert headings(chinese) == headings(english) and len(headings(english)) > 7
    assert page_commands(ROOT / "README.zh-CN.md") == page_commands(ROOT / "README.md")
    assert len(page_commands(ROOT / "README.md")) > 9
    assert figures(chinese) == figures(english) and len(figures(english)) > 5
    other = {"README.md", "README.zh-CN.md"}
    assert set(LINK.findall(chinese)) - other == set(LINK.findall(english)) - other


NAMED = re.compile(
    r"`((?:src|docs|tests|experiments|benchmarks|examples|metrics|\.github|\.ci)/[\w./-]+)`"
)
LINK = re.compile(r"\]\(([\w./-]+)\)")


def test_every_file_that_a_page_names_or_links_exists():
    named = {
        (page.name, path)
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for path in [
            *(ROOT / name for name in NAMED.findall(text)),
            *(page.parent / name for name in LINK.findall(text)),
        ]
    }
    assert len(named) > 60
    assert {(page, str(path)) for page, path in named if not path.exists()} == set()


def test_every_page_is_linked_from_the_readme():
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked
