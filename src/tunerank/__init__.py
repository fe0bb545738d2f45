"""Fine-tune a cross-encoder reranker on your own questions and passages, and rank with it.

from tunerank import Passage, Ranker
"""

import importlib

# Loaded on first use, because the ranker imports torch, which takes seconds and which few stages
# need. An `import` statement would give every stage the ranker as a dep (tests/test_pipeline.py).
PUBLIC = {"Ranker": "ranker", "Ranked": "ranker", "Passage": "data.passages"}
__all__ = list(PUBLIC)


def __getattr__(name: str):
    if name in PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
