#!/usr/bin/env bash
# A base on new data, without fine-tuning, beside the first stages: is it worth starting from?
#   experiments/zero-shot.sh FOLDER [dvc exp run options, for example -S base.source=e5-small]
# FOLDER is what prepare.raw takes, from the project's folder; the questions of a third of its passages
# are scored. For XQuAD (Artetxe et al. 2020, arXiv:1910.11856):
#   python experiments/squad.py data/raw/xquad xquad.zh.json && experiments/zero-shot.sh data/raw/xquad
# Like any `dvc exp run` it leaves its parameters and data in the workspace:
#   git checkout params.yaml dvc.lock && dvc checkout
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${1:-}" ] || { echo "error: name the data: experiments/zero-shot.sh FOLDER" >&2; exit 2; }
quote="'"
raw=${1//$quote/\\$quote}; shift  # a name in quotes may hold spaces and brackets
dvc exp run -S "prepare.raw='$raw'" -S prepare.valid_fraction=0 -S prepare.test_fraction=0.35 \
  -S 'evaluate.fusion_weights=[1,0,0]' "$@" baseline
python experiments/zero_shot.py
