#!/usr/bin/env bash
# The defaults of this repository, not the article's, from the article's base, on your data: what a larger base is worth. It was made
# for whole passages, and is shown them.
#   experiments/bge-base.sh [dvc exp run options, for example -S prepare.raw=data/raw/mine.xlsx]
# Needs the Hub (1.1 GB). Hardware and time: 278 M parameters, six times the bundled base's work for each pair, so hours on a CPU
# without AMX; a GPU of 11 GB is enough. Not run here, where no hub is reached.
set -euo pipefail
cd "$(dirname "$0")/.."
exec dvc exp run --name bge-base \
  -S base.source=hub -S base.repo=BAAI/bge-reranker-base -S base.revision=2cfc18c9415c912f9d8155881c133215df768a70 \
  -S retrieve.shown=0 -S train.lr=2e-5 "$@"
