#!/usr/bin/env bash
# Other rerankers as rows of the same tables, on the same candidates, in views and whole:
# bge-reranker-large and bge-reranker-v2-m3.
#   experiments/others.sh [dvc exp run options]
# Training is not run again. Needs the Hub (2.2 and 2.3 GB) and, for a reasonable time, a GPU: 560 and
# 568 M parameters over 12 000 pairs. To add one, use `dvc exp run -S '+evaluate.compare.NAME={...}'`
# with a commit of it; the article's own result is stevenluo/bge-reranker-base-ft-v1. Models that need
# code from the Hub (gte, jina) are not loaded: export them, and name the folder.
set -euo pipefail
cd "$(dirname "$0")/.."
exec dvc exp run --name others \
  -S '+evaluate.compare.bge-large={source: hub, repo: BAAI/bge-reranker-large, revision: 55611d7bca2a7133960a6d3b71e083071bbfc312}' \
  -S '+evaluate.compare.bge-v2-m3={source: hub, repo: BAAI/bge-reranker-v2-m3, revision: 953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e}' \
  "$@"
