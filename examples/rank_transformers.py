"""Rank passages by plain transformers, in views of the size in the checkpoint's config.

`tunerank rank` does the same.

python examples/rank_transformers.py models/reranker "电池保修几年？" passages.txt

Every view is scored, which no row of metrics/table.md does: "reranker" has only the views nearest
to the query, found by a first stage. examples/search.py makes that row and "fused", the other
examples rank whole passages: the row "reranker, whole".
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, query, path = sys.argv[1:]
passages = Path(path).read_text(encoding="utf-8").splitlines()
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
# The characters of a view, which the model was trained with.
size = (getattr(model.config, "reranker", None) or {}).get("shown") or max(map(len, passages))


def score(passage: str) -> float:
    """Return the raw logit of the best view; each view overlaps half of the next."""
    starts = range(0, max(1, len(passage) - size + size // 2), max(1, size // 2))
    views = [passage[start : start + size] for start in starts]
    inputs = tokenizer(
        [query] * len(views),
        views,
        truncation="only_second",
        max_length=512,
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        return model(**inputs).logits.max().item()


for logit, passage in sorted(((score(passage), passage) for passage in passages), reverse=True):
    print(f"{logit:.6f}\t{passage}")
