#!/usr/bin/env bash
# From bge-reranker-v2-m3, on whole passages: the strongest open multilingual encoder of the BGE family.
#   experiments/bge-v2-m3.sh [dvc exp run options]
# Needs the Hub (2.3 GB). Hardware: 568 M parameters; a GPU of 24 GB, or of 16 GB with the gradient
# checkpointing that is set here. Not run here, without a hub.
set -euo pipefail
cd "$(dirname "$0")/.."
exec dvc exp run --name bge-v2-m3 \
  -S base.source=hub -S base.repo=BAAI/bge-reranker-v2-m3 -S base.revision=953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e \
  -S retrieve.shown=0 -S train.lr=1e-5 -S train.gradient_checkpointing=true -S score.batch_tokens=65536 "$@"
