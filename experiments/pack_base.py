"""Pack a fine-tuned multilingual-e5-small into models/bundled, small enough for Git.

    pip install --target .cache/wordfreq wordfreq==3.1.1
    PYTHONPATH=.cache/wordfreq python experiments/pack_base.py models/reranker models/bundled \\
      [TEXT ...]

The vocabulary (experiments/packing.py) has the pieces that the texts need (UTF-8 files, one text a
line), those that the 100000 most frequent Chinese words need, and those of the most frequent
English words, as many as there is room for.
"""

import json
import sys
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from packing import CHINESE, kept_pieces, pack
from tokenizers import Tokenizer

from tunerank.core.errors import InputError, run_command
from tunerank.core.files import replacing

PIECES = 33_800
"""Size of the vocabulary: 28 MB without the encoder, at 192 + 24 + about 30 bytes a piece."""


def spellings(english: list[str], count: int) -> Iterator[str]:
    """Yield the `count` most frequent words after a space, and fewer of them in other spellings.

    These are capitalised, in upper case, and inside Chinese text.
    """
    for rank, word in enumerate(english[:count]):
        forms = [word]
        if rank < count // 2:
            forms.append(word.capitalize())
        if rank < count // 5:
            forms.append(word.upper())
        for form in forms:
            yield form
            if rank < count // 5:
                yield f"的{form}"


def main(source: str, target: str, *texts: str) -> None:
    try:
        from wordfreq import top_n_list
    except ImportError:
        raise InputError(
            "the word lists are missing: pip install --target .cache/wordfreq wordfreq==3.1.1"
        ) from None
    tokenizer = Tokenizer.from_file(str(Path(source) / "tokenizer.json"))
    tokenizer.no_truncation()
    # Frequent words of Chinese text include some in Latin letters; English has its own list.
    chinese = [word for word in top_n_list("zh", 100_000) if CHINESE.fullmatch(word)]
    lines = [line for text in texts for line in Path(text).read_text(encoding="utf-8").splitlines()]
    needed = kept_pieces(tokenizer, chinese + lines)
    english = top_n_list("en", 100_000)

    def vocabulary(count: int) -> list[int]:
        return sorted({*needed, *kept_pieces(tokenizer, spellings(english, count))})

    counts = range(0, len(english) + 1, 100)
    fitting = bisect_right(counts, PIECES, key=lambda count: len(vocabulary(count)))
    if not fitting:
        raise InputError(
            f"the texts alone need {len(needed)} pieces, more than {PIECES}; give fewer"
        )
    count = counts[fitting - 1]
    keep = vocabulary(count)
    with replacing(target) as folder:
        pack(Path(source), folder, keep)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    print(
        f"{target}: {len(keep)} pieces, {len(needed)} of them without English words; "
        f"{count} English words"
    )
    print(json.dumps(sizes | {"total": sum(sizes.values())}))


if __name__ == "__main__":
    run_command(main)
