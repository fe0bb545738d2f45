#!/usr/bin/env bash
# The default run under two more seeds, test questions included: how much of the README's headline is luck.
#   experiments/seeds.sh [dvc exp run options]
#   dvc queue start && dvc queue status
#   python experiments/seed_table.py HEAD seed-43 seed-44
# Time: about 30 minutes a run on 2 CPU cores; retrieval and the base's scores are the committed run's.
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --queue --name seed-43 -S seed=43 "$@"
dvc exp run --queue --name seed-44 -S seed=44 "$@"
