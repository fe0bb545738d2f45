#!/usr/bin/env bash
# The default run under two more seeds, test questions included: how much of the README's headline is luck.
#   experiments/seeds.sh [dvc exp run options]
#   dvc queue start && dvc queue status
#   dvc exp show --md --drop '.*' --keep 'Experiment|seed|all.(base|reranker|fused|dense).(hit@1|MRR@10)'
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --queue -S seed=43,44 "$@"
