#!/usr/bin/env bash
# The default run under two more seeds, test questions included: how much of the README's headline is
# luck. prepare.split_seed is not changed, so that all seeds have the same test and validation questions.
#   experiments/seeds.sh [dvc exp run options]
#   dvc queue start && dvc queue status
#   python experiments/seed_table.py HEAD seed-43 seed-44
# Time: about 30 minutes a run on 2 CPU cores; retrieval and the base's scores are the committed run's.
set -euo pipefail
cd "$(dirname "$0")/.."
git -c user.useConfigOnly=true var GIT_COMMITTER_IDENT > /dev/null 2>&1 || {
  echo "error: --queue commits to Git, which has no name and address here: git config --global user.name NAME, and user.email" >&2
  exit 1
}
dvc exp run --queue --name seed-43 -S seed=43 "$@"
dvc exp run --queue --name seed-44 -S seed=44 "$@"
