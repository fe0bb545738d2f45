#!/usr/bin/env bash
# Is the result ever worse than its base on the validation questions? Five more seeds, and learning
# rates from 1e-6 to 1e-3.
#   experiments/never-worse.sh [dvc exp run options]
#   dvc queue start && dvc queue status
#   dvc exp show --md --drop '.*' --keep 'Experiment|seed|train.lr|valid.(base|best)|merge'
# merge.chosen is the share of fine-tuned weights that was kept, and the value beside that share is the
# result's. Each run ends with the stage train, so that no test question is scored. Time: about 16
# minutes a run on 2 CPU cores, 9 runs.
set -euo pipefail
cd "$(dirname "$0")/.."
git -c user.useConfigOnly=true var GIT_COMMITTER_IDENT > /dev/null 2>&1 || {
  echo "error: --queue commits to Git, which has no name and address here: git config --global user.name NAME, and user.email" >&2
  exit 1
}
dvc exp run --queue -S seed=1,2,3,4,5 "$@" train
dvc exp run --queue -S train.lr=1e-6,1e-5,1e-4,1e-3 "$@" train
