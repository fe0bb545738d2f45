"""Rank passages by an ONNX file in onnxruntime: no torch, no transformers.

pip install onnxruntime tokenizers
python examples/rank_onnx.py reranker-onnx "电池保修几年？" passages.txt

A line of passages.txt is a whole passage, after its title (title。text), as in the row "reranker,
whole" of metrics/table.md.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, query, path = sys.argv[1:]
passages = Path(path).read_text(encoding="utf-8").splitlines()
config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
tokenizer.enable_truncation(512, strategy="only_second")
tokenizer.enable_padding(pad_id=config["pad_token_id"])
session = onnxruntime.InferenceSession(
    Path(folder, "model.onnx"), providers=["CPUExecutionProvider"]
)
wanted = {entry.name for entry in session.get_inputs()}

scores = []
for start in range(0, len(passages), 16):
    encoded = tokenizer.encode_batch([(query, passage) for passage in passages[start : start + 16]])
    inputs = {
        "input_ids": np.array([pair.ids for pair in encoded], np.int64),
        "attention_mask": np.array([pair.attention_mask for pair in encoded], np.int64),
        "token_type_ids": np.array([pair.type_ids for pair in encoded], np.int64),
    }
    scores += session.run(["logits"], {name: inputs[name] for name in wanted})[0][:, 0].tolist()
for score, passage in sorted(zip(scores, passages), reverse=True):
    print(f"{score:.6f}\t{passage}")
