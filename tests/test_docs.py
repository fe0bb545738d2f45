"""The examples in docstrings are true."""

import doctest
import importlib
import re

import pytest

from commands import PAGES, shown
from conftest import ROOT

WITH_EXAMPLES = ["commands"] + [f"reranker.{path.stem}" for path in sorted((ROOT / "src/reranker").glob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings(module):
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert failed == 0 and tried > 0


def headings(text: str) -> list[str]:
    """The levels of its headings: their words are another language's."""
    return re.findall(r"^(#+) ", re.sub(r"(?ms)^```.*?^```$", "", text), re.MULTILINE)


def test_the_chinese_readme_has_the_same_sections_commands_and_tables():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert headings(chinese) == headings(english) and len(headings(english)) > 10
    assert shown(ROOT / "README.zh-CN.md") == shown(ROOT / "README.md") and len(shown(ROOT / "README.md")) > 20
    figures = re.compile(r"(?m)^\|(?: [\w-]+ \|){1,2}(?: -?[\d.]+ \|)+")
    assert figures.findall(chinese) == figures.findall(english) and len(figures.findall(english)) > 20


def test_every_file_that_a_page_names_is_there():
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`((?:src|docs|tests|experiments|benchmarks|examples|metrics|\.github|\.ci)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    made = {"metrics/"}
    assert {(page, name) for page, name in named if not (ROOT / name).exists() and name not in made} == set()
