#!/usr/bin/env bash
# The default run as a named experiment, to compare others with.
#   experiments/bundled.sh [dvc exp run options]
# Hardware and time: 2 CPU cores, 29 minutes from nothing; seconds after `make repro`, because its
# results are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
exec dvc exp run --name bundled -S base.source=bundled "$@"
