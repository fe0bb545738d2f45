#!/usr/bin/env bash
# Train a general base and a smaller one on pairs of open data, question or heading and its passage, and
# pack both into models/bundled.
#   experiments/general-base.sh pairs.jsonl.xz passages.jsonl.xz
# docs/models.md has the data's sources and licences. Training starts from the bare encoder, which
# also mines the negatives. Time: minutes on a data-centre GPU, days on 2 CPU cores. The bundled
# checkpoints come from a prototype of this script (docs/models.md).
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${2:-}" ] || { echo "error: name pairs and passages: experiments/general-base.sh PAIRS PASSAGES" >&2; exit 2; }
dvc exp run --name general-base -S base.source=e5-small -S retriever.source=e5-small fetch
python experiments/general_samples.py "$1" "$2" models/retriever .cache/general/samples
python experiments/general_base.py .cache/general/samples/train.jsonl models/base .cache/general/l12 --epochs 0.6
python experiments/general_base.py .cache/general/samples/train.jsonl .cache/general/l12 .cache/general/l6 --layers 0 2 4 7 9 11 --epochs 0.4
pip install --quiet --target .cache/tools wordfreq==3.1.1
PYTHONPATH=.cache/tools python experiments/pack_base.py .cache/general/l12 models/bundled
python experiments/pack_small.py .cache/general/l6 models/bundled --layers 0 2 4 7 9 11
