#!/usr/bin/env bash
# Learning rates, judged by the validation questions: training alone, no test question is scored.
#   experiments/lr-sweep.sh [dvc exp run options]
#   dvc queue start && dvc queue status
#   python experiments/validation_table.py main lr-2e-5 lr-5e-5 lr-1e-4 lr-2e-4
# Hardware and time: 6 to 8 minutes a run on 2 CPU cores, 4 runs.
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --queue --name lr-2e-5 -S train.lr=2e-5 "$@" train
dvc exp run --queue --name lr-5e-5 -S train.lr=5e-5 "$@" train
dvc exp run --queue --name lr-1e-4 -S train.lr=1e-4 "$@" train
dvc exp run --queue --name lr-2e-4 -S train.lr=2e-4 "$@" train
