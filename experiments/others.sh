#!/usr/bin/env bash
# Other rerankers as rows of the same tables, on the same candidates, in views and whole: bge-reranker-large and bge-reranker-v2-m3.
#   experiments/others.sh [dvc exp run options]
# Training is not run again. Needs the Hub (2.2 and 2.3 GB) and, for a reasonable time, a GPU: 560 and 568 M parameters over 12 000
# pairs. For one more, with `dvc exp run -S '+evaluate.compare.NAME={...}'`, name a commit of it; the article's own result is
# stevenluo/bge-reranker-base-ft-v1. What needs code from the Hub to be run (gte, jina) is not loaded: export it, and name its folder.
set -euo pipefail
cd "$(dirname "$0")/.."
exec dvc exp run --name others \
  -S '+evaluate.compare.bge-large={source: hub, repo: BAAI/bge-reranker-large, revision: 55611d7bca2a7133960a6d3b71e083071bbfc312}' \
  -S '+evaluate.compare.bge-v2-m3={source: hub, repo: BAAI/bge-reranker-v2-m3, revision: 953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e}' \
  "$@"
