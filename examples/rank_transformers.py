"""Rank passages by plain transformers, in windows of the size that the checkpoint's config names, as src/rank.py does.

python examples/rank_transformers.py models/reranker "电池保修几年？" passages.txt

Every window is scored. The row "reranker" of metrics/table.md is of those nearest to the query alone, which needs a first stage. The
other programs show whole passages: the row "reranker, whole".
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, query, path = sys.argv[1:]
passages = Path(path).read_text(encoding="utf-8").splitlines()
tokenizer, model = (
    AutoTokenizer.from_pretrained(folder),
    AutoModelForSequenceClassification.from_pretrained(folder).eval(),
)
size = (getattr(model.config, "reranker", None) or {}).get("shown") or max(
    map(len, passages)
)  # characters it has learned from


def score(passage: str) -> float:
    """The raw logit of the best window; each shares half with the next."""
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


for found, passage in sorted(((score(passage), passage) for passage in passages), reverse=True):
    print(f"{found:.6f}\t{passage}")
