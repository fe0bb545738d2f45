"""The examples in docstrings are true."""

import doctest
import importlib

import pytest

from conftest import ROOT

WITH_EXAMPLES = [path.stem for path in sorted((ROOT / "src/reranker").glob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings(module):
    failed, tried = doctest.testmod(importlib.import_module(f"reranker.{module}"))
    assert failed == 0 and tried > 0
