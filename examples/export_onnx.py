"""Write the reranker as ONNX with torch's own exporter, beside any version of transformers.

pip install onnx onnxscript onnxruntime
python examples/export_onnx.py models/reranker reranker-onnx
python examples/rank_onnx.py reranker-onnx "电池保修几年？" passages.txt

With whole passages, as rank_onnx.py shows them, expect the row "reranker, whole" of
metrics/table.md.
"""

import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, target = Path(sys.argv[1]), Path(sys.argv[2])
target.mkdir(parents=True, exist_ok=True)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
sample = AutoTokenizer.from_pretrained(folder)(
    ["一", "二二"], ["三三三", "四"], padding=True, return_tensors="pt"
)
names, axes = list(sample), {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
torch.onnx.export(
    model,
    kwargs=dict(sample),
    f=target / "model.onnx",
    input_names=names,
    output_names=["logits"],
    dynamic_shapes={name: axes for name in names},
    dynamo=True,
    external_data=False,
)
for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
    shutil.copyfile(folder / name, target / name)
