#!/usr/bin/env bash
# The defaults of this repository, not the article's, with the article's base: what a larger base is
# worth on your data. This base was trained on whole passages, and ranks whole passages.
#   experiments/bge-base.sh [dvc exp run options, for example -S prepare.raw=data/raw/mine.xlsx]
# Needs the Hub (1.1 GB). Hardware and time: 278 M parameters, six times the work of the bundled base
# for each pair, so hours on a CPU without AMX; a GPU of 11 GB is enough. Not run here, without a hub.
set -euo pipefail
cd "$(dirname "$0")/.."
exec dvc exp run --name bge-base \
  -S base.source=hub -S base.repo=BAAI/bge-reranker-base -S base.revision=2cfc18c9415c912f9d8155881c133215df768a70 \
  -S retrieve.shown=0 -S train.lr=2e-5 "$@"
