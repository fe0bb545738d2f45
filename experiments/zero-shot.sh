#!/usr/bin/env bash
# A base on data that it has not seen, without fine-tuning, beside the first stages: is it worth starting from?
#   experiments/zero-shot.sh FOLDER [dvc exp run options, for example -S base.source=e5-small]
# FOLDER is what prepare.raw takes; the questions of a third of its passages are scored. For XQuAD (Artetxe et al. 2020,
# arXiv:1910.11856):  python experiments/squad.py data/raw/xquad xquad.zh.json && experiments/zero-shot.sh data/raw/xquad
# Like any `dvc exp run` it leaves its parameters and data in the workspace: git checkout params.yaml dvc.lock && dvc checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run -S prepare.raw="$1" -S prepare.valid_fraction=0 -S prepare.test_fraction=0.35 -S 'evaluate.fusion_weights=[1,0,0]' \
  "${@:2}" baseline
python experiments/zero_shot.py
