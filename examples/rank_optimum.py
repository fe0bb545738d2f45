"""Rank passages by optimum's ONNX Runtime model, exported on the fly.

pip install "optimum-onnx[onnxruntime]"        # 0.1.0 wants transformers below 4.58: in an environment of its own
optimum-cli export onnx --model models/reranker --task text-classification reranker-onnx      # or keep the export
python examples/rank_optimum.py models/reranker "电池保修几年？" passages.txt

A line of passages.txt is a whole passage, after its title (title。text): the row "reranker, whole" of metrics/table.md.
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
