"""Pack a smaller reranker beside the bundled one, as changes to some of its layers.

    python experiments/pack_small.py .cache/general/l6 models/bundled --layers 0 2 4 7 9 11

experiments/general_base.py trains it; src/tunerank/sources/small.py has the format.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from packing import pack_small

from tunerank.core.errors import run_command
from tunerank.sources.small import SMALL


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument("packed")
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    options = parser.parse_args(arguments)
    packed = Path(options.packed)
    pack_small(Path(options.source), options.layers, packed)
    total = sum(path.stat().st_size for path in packed.iterdir())
    print(f"{packed / SMALL}: {(packed / SMALL).stat().st_size} bytes; the folder has {total}")


if __name__ == "__main__":
    run_command(main)
