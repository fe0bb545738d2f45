"""Fine-tune a cross-encoder reranker on your own questions and passages, search and rank with it.

from tunerank import Passage, Ranker, Searcher
"""

import importlib

# Loaded on first use, because they import torch, which takes seconds and which few stages need. An
# `import` statement would give every stage the ranker as a dep (tests/test_pipeline.py).
PUBLIC = {
    "Ranker": "ranker",
    "Ranked": "ranker",
    "Searcher": "searcher",
    "Found": "searcher",
    "Passage": "data.passages",
}
__all__ = list(PUBLIC)


def __getattr__(name: str):
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{PUBLIC[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name.startswith(__name__):
            raise
        raise ImportError(
            f"{name} needs {error.name}: pip install 'tunerank[pipeline]'", name=error.name
        ) from None
