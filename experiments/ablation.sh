#!/usr/bin/env bash
# Change one setting of the default run at a time, judged by the validation questions.
#   experiments/ablation.sh [dvc exp run options, for example -S prepare.raw=data/raw/mine]
#   dvc queue start && dvc queue status
#   python experiments/validation_table.py HEAD ablation-one-view ablation-group-8 ...
# The runs are queued. Each ends with the stage train, so that no test question is scored, and ranks
# the validation questions twice: by the base and by the result. A run takes about as long as the
# stage train (docs/performance.md).
set -euo pipefail
cd "$(dirname "$0")/.."
git -c user.useConfigOnly=true var GIT_COMMITTER_IDENT > /dev/null 2>&1 || {
  echo "error: --queue commits to Git, which has no name and address here: git config --global user.name NAME, and user.email" >&2
  exit 1
}
others=("$@")
change() {
  name=$1; shift
  dvc exp run --queue --name "ablation-$name" -S train.evals_per_epoch=1 -S 'train.merge=[0.0,1.0]' "$@" "${others[@]}" train
}
change nothing
change base-e5-small -S base.source=e5-small -S train.lr=2e-4 -S samples.random_negatives=10
change no-title -S retrieve.title=false
change one-view -S retrieve.views=1
change views-of-2 -S retrieve.views_depth=2
change shown-64 -S retrieve.shown=64
change shown-128 -S retrieve.shown=128
change whole-passages -S retrieve.shown=0 -S train.group_size=3
change units-views -S samples.units.whole=0.0
change units-windows -S samples.units.view=0.0 -S samples.units.window=0.5
change untitled -S samples.untitled=0.2
change positive-shown -S samples.pair=passage
change positive-evidence -S samples.pair=evidence
change no-random-negatives -S samples.random_negatives=0
change most-negatives-random -S samples.random_negatives=10
change nearer-negatives -S samples.window=15
change margin -S samples.relative_margin=0.01
change teacher-margin -S samples.teacher_margin=0.0
change no-distillation -S samples.teacher=none -S train.distill_weight=0.0
change distillation-2 -S train.distill_weight=2.0
change temperature-2 -S train.distill_temperature=2.0
change group-8 -S train.group_size=8
change epochs-2 -S train.epochs=2.0
change lr-5e-5 -S train.lr=5e-5
change lr-2e-4 -S train.lr=2e-4
change embeddings-trained -S train.freeze_embeddings=false
change pretrained -S pretrain.epochs=1.0
