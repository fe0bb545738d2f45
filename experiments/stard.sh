#!/usr/bin/env bash
# Questions with several right passages: STARD (Su et al. 2024, arXiv:2406.15313), laypeople's legal
# questions and the statute articles that answer them, in BEIR's form.
#   experiments/stard.sh FOLDER [dvc exp run options]
# FOLDER is what prepare.raw takes, from the project's folder: corpus.jsonl, queries.jsonl, qrels/.
# Statute articles are short, so that they are ranked whole.
# Like any `dvc exp run` it leaves its parameters and data in the workspace:
#   git checkout params.yaml dvc.lock && dvc checkout
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${1:-}" ] || { echo "error: name the data: experiments/stard.sh FOLDER" >&2; exit 2; }
quote="'"
raw=${1//$quote/\\$quote}; shift  # a name in quotes may hold spaces and brackets
exec dvc exp run --name stard -S "prepare.raw='$raw'" \
  -S retrieve.window=0 -S retrieve.stride=0 -S retrieve.shown=0 \
  -S samples.units.view=0 -S samples.units.whole=1 \
  "$@"
