#!/usr/bin/env bash
# How models/bundled was made: multilingual-e5-small taught to rank on public reading-comprehension questions, then packed.
#   experiments/bundled-base.sh DRCD_dev.json DRCD_test.json cmrc2018_trial.json
# Data (docs/bundled-base.md): DRCD's dev and test files and cmrc2018's trial file; no question or passage of data/raw/yunshan.
# Loss: cross-entropy over groups of 6 and distillation of the first stage's cosines, 721 steps of 8 groups.
# Time: about 15 minutes of retrieval and 50 of training on 2 CPU cores; minutes on a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
pip install --quiet --target .cache/tools opencc==1.4.2 wordfreq==3.1.1
export PYTHONPATH=.cache/tools
python experiments/squad.py data/raw/general "$@"
dvc exp run --name bundled-base \
  -S base.source=e5-small -S prepare.raw=data/raw/general -S prepare.valid_fraction=0.02 -S prepare.test_fraction=0.02 \
  -S retrieve.window=64 -S retrieve.stride=64 -S retrieve.shown=64 \
  -S samples.strategy=hard -S samples.pair=both -S samples.teacher=retriever \
  -S samples.negatives=12 -S samples.random_negatives=4 -S samples.window=30 \
  -S train.lr=1.5e-4 -S train.epochs=0.75 -S train.batch_size=8 -S train.accumulation=1 -S train.group_size=6 \
  -S train.warmup_ratio=0.05 -S train.scheduler=cosine -S train.weight_decay=0.01 -S train.dropout=0.0 \
  -S train.freeze_embeddings=true -S train.distill_weight=1.0 -S train.distill_temperature=1.0 \
  -S train.evals_per_epoch=0 -S 'evaluate.fusion_weights=[1,0,0]'
python experiments/pack_base.py models/reranker models/bundled
