"""Rank passages by optimum's ONNX Runtime model, exported on the fly.

optimum-onnx 0.1.0 needs transformers below 4.58: install it in an environment of its own. The
second command keeps an export, for a later `rank_optimum.py reranker-onnx ...`.

pip install "optimum-onnx[onnxruntime]"
optimum-cli export onnx --model models/reranker --task text-classification reranker-onnx
python examples/rank_optimum.py models/reranker "电池保修几年？" passages.txt

A line of passages.txt is a whole passage, after its title (title。text), as in the row "reranker,
whole" of metrics/table.md.
"""

import sys
from pathlib import Path

from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer

folder, query, path = sys.argv[1:]
passages = Path(path).read_text(encoding="utf-8").splitlines()
exported = Path(folder, "model.onnx").exists()
tokenizer = AutoTokenizer.from_pretrained(folder)
model = ORTModelForSequenceClassification.from_pretrained(folder, export=not exported)
scores = []
for passage in passages:
    inputs = tokenizer(
        query, passage, truncation="only_second", max_length=512, return_tensors="np"
    )
    scores.append(model(**inputs).logits.item())
for score, passage in sorted(zip(scores, passages), reverse=True):
    print(f"{score:.6f}\t{passage}")
