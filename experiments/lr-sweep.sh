#!/usr/bin/env bash
# Learning rates, judged by the validation questions: training only, no test question is scored.
#   experiments/lr-sweep.sh [dvc exp run options]
#   dvc queue start && dvc queue status
#   python experiments/validation_table.py main lr-2e-5 lr-5e-5 lr-1e-4 lr-2e-4
# Hardware and time: 6 to 8 minutes a run on 2 CPU cores, 4 runs.
set -euo pipefail
cd "$(dirname "$0")/.."
git -c user.useConfigOnly=true var GIT_COMMITTER_IDENT > /dev/null 2>&1 || {
  echo "error: --queue commits to Git, which has no name and address here: git config --global user.name NAME, and user.email" >&2
  exit 1
}
dvc exp run --queue --name lr-2e-5 -S train.lr=2e-5 "$@" train
dvc exp run --queue --name lr-5e-5 -S train.lr=5e-5 "$@" train
dvc exp run --queue --name lr-1e-4 -S train.lr=1e-4 "$@" train
dvc exp run --queue --name lr-2e-4 -S train.lr=2e-4 "$@" train
