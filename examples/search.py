"""Search by the system that a run has measured, `fused`: first stage, reranker and weights.

    python examples/search.py . "电池保修几年？"                  # a repository after dvc repro
    python examples/search.py my-search "电池保修几年？"          # what tunerank export wrote
    python examples/search.py my-org/my-search "电池保修几年？" v1.0   # from the Hub

It prints rank, score and id of the first five passages, each part's score, and the text that
decided. Over all test questions this is the row "fused" of metrics/table.md; the other examples
have the reranker alone.
"""

import sys

from tunerank import Searcher

source, query, *revision = sys.argv[1:]
for found in Searcher(source, *revision).search(query, top_k=5):
    parts = ", ".join(f"{name} {score:.4f}" for name, score in found.scores.items())
    print(f"{found.rank}  {found.score:.4f}  {found.passage}  {found.title}  ({parts})")
    print(f"   {' '.join(found.text[slice(*found.span)].split())}")
