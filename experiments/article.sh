#!/usr/bin/env bash
# The article's recipe on its own kind of data, as one DVC experiment.
#   experiments/article.sh TABLE [dvc exp run options, for example -S train.epochs=1]
# TABLE: a workbook with uuid, question, answer, context, doc, qa_type, dataset; a path from the
# project's folder, as prepare.raw takes it.
# Hardware: bge-reranker-base with groups of 32 took the author a GTX 1080 Ti (11 GB); a CPU takes days.
# Retriever: the article used its own bge-large-zh-v1.5-ft-v4; here it is the one in params.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${1:-}" ] || { echo "error: name the table: experiments/article.sh TABLE" >&2; exit 2; }
quote="'"
table=${1//$quote/\\$quote}; shift  # a name in quotes may hold spaces and brackets
exec dvc exp run --name article \
  -S "prepare.raw='$table'" -S 'prepare.qa_types=[detailed]' -S prepare.valid_fraction=0 \
  -S base.source=hub -S base.repo=BAAI/bge-reranker-base -S base.revision=2cfc18c9415c912f9d8155881c133215df768a70 \
  -S retrieve.dense_weight=0.5 -S retrieve.bm25_weight=0.5 -S retrieve.rrf_k=60 -S retrieve.bm25_depth=4 \
  -S retrieve.window=0 -S retrieve.stride=0 -S retrieve.shown=0 \
  -S samples.strategy=all -S samples.pair=qd -S samples.neg_batch_size=16 -S samples.n_neg_batch=32 \
  -S samples.teacher=none -S train.distill_weight=0.0 -S train.evals_per_epoch=0 -S 'evaluate.fusion_weights=[1,0,0]' \
  -S train.lr=1e-5 -S train.epochs=2 -S train.batch_size=1 -S train.accumulation=32 -S train.group_size=32 \
  -S train.warmup_ratio=0.05 -S train.scheduler=cosine -S train.weight_decay=0.0 -S train.drop_last=true \
  -S train.dropout=null -S train.freeze_embeddings=false -S train.logging_steps=5 -S train.save_steps=50 \
  -S train.query_max_length=64 -S train.passage_max_length=448 \
  "$@"
