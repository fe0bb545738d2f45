#!/usr/bin/env bash
# A general base and a smaller one, from question and heading to passage pairs of open data; then packed into models/bundled.
#   experiments/general-base.sh pairs.jsonl.xz passages.jsonl.xz
# docs/bundled-base.md has the data's sources and licences. The bare encoder is where it starts from, and what mines the negatives.
# Time: minutes on a data-centre GPU; on 2 CPU cores days. The bundled checkpoint is of a prototype of this (docs/bundled-base.md).
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name general-base -S base.source=e5-small -S retriever.source=e5-small fetch
python experiments/general_samples.py "$1" "$2" models/retriever .cache/general/samples
python experiments/general_base.py .cache/general/samples/train.jsonl models/base .cache/general/l12 --epochs 0.6
python experiments/general_base.py .cache/general/samples/train.jsonl .cache/general/l12 .cache/general/l6 --layers 0 2 4 7 9 11 --epochs 0.4
pip install --quiet --target .cache/tools wordfreq==3.1.1
PYTHONPATH=.cache/tools python experiments/pack_base.py .cache/general/l12 models/bundled
