"""Rank passages by sentence-transformers; with --onnx in ONNX Runtime, exported on the fly.

pip install sentence-transformers
pip install sentence-transformers optimum-onnx onnxruntime   # for --onnx: transformers below 4.58
python examples/rank_sentence_transformers.py models/reranker "电池保修几年？" passages.txt

A line of passages.txt is a whole passage, after its title (title。text), as in the row "reranker,
whole" of metrics/table.md.
"""

import sys
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder

folder, query, path, *onnx = sys.argv[1:]
passages = Path(path).read_text(encoding="utf-8").splitlines()
model = CrossEncoder(folder, backend="onnx" if onnx else "torch")
# Raw logits; without activation_fn a sigmoid maps them into 0 to 1, in the same order.
for ranked in model.rank(
    query, passages, activation_fn=torch.nn.Identity(), show_progress_bar=False
):
    print(f"{ranked['score']:.6f}\t{passages[ranked['corpus_id']]}")
