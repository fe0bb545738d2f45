"""Tokenize training samples once, store the ids on disk, and join them into pairs.

FlagEmbedding 1.4.2 tokenizes each pair when it is drawn: it encodes both texts, decodes them and
encodes them together, and it repeats the query for each passage. Here each distinct text is encoded
once, in batches, and the tokenizer's own template joins the ids. The result is the same, with one
exception: where a text starts with an unknown character, FlagEmbedding loses a piece that ranking
has, and this file does not.

Memory does not grow with the texts: only a digest of 16 bytes for each distinct one is held, and
only while the files are written.
"""

import hashlib
import itertools
import math
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from tunerank.core.errors import InputError
from tunerank.core.files import file_digest, read_jsonl, replacing

FILES = "texts.arrow", "rows.arrow"
TEXTS = pa.schema([("ids", pa.list_(pa.int32()))])
NUMBERS = {"pos_scores": "pos", "neg_scores": "neg", "pos_weights": "pos"}
"""Optional entries of a sample: a number for each of its texts in the list that is named."""
ROWS = pa.schema(
    [("query", pa.int64())]
    + [(side, pa.list_(pa.int64())) for side in ("pos", "neg")]
    + [(name, pa.list_(pa.float64())) for name in NUMBERS]
)


class TokenizedSamples:
    """Samples with numbers in place of texts, and the ids of each text, both memory-mapped.

    Args:
        samples: FlagEmbedding's jsonl.
        limit: how many ids of a text are stored.
        folder: where they are stored. It is written again if it belongs to other samples, another
            tokenizer or limit, or if a file is damaged.

    Raises:
        InputError: there are no samples, or one has no positive or no negative, or scores or
            weights that do not fit its texts.
    """

    def __init__(self, samples: Path, tokenizer: PreTrainedTokenizerBase, limit: int, folder: Path):
        tokenizer_json = tokenizer.backend_tokenizer.to_str()
        of = f"{file_digest(samples)}:{limit}:{ROWS.names}:{tokenizer_json}"
        key = hashlib.sha256(of.encode())
        marker = folder / "key"
        if not marker.is_file() or marker.read_bytes() != _marker(key.hexdigest(), folder):
            with replacing(folder) as partial:
                partial.mkdir()
                _tokenize(samples, tokenizer, limit, partial)
                (partial / "key").write_bytes(_marker(key.hexdigest(), partial))
        self.texts, self.rows = (_memory_map(folder / name) for name in FILES)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> dict:
        """Return a sample: query, pos, neg as text numbers; each of NUMBERS or None."""
        return {name: self.rows[name][index].as_py() for name in ROWS.names}

    def ids(self, text: int) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return self.texts["ids"][text].values.to_pylist()


class PairTemplate:
    """The special tokens and token types that a tokenizer adds to a pair of texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        first, second = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b")
        )
        pair = tokenizer("a", "b")
        ids, types = pair["input_ids"], pair.get("token_type_ids")
        start = _find(ids, first, 0)
        end = start + len(first)
        second_start = _find(ids, second, end)
        self.before, self.between = ids[:start], ids[end:second_start]
        self.after = ids[second_start + len(second) :]
        self.special = len(self.before + self.between + self.after)
        # The first type is for everything up to the second text, the second type for the rest.
        self.types = types and (types[start], types[second_start])

    def join(self, query: list[int], passage: list[int], max_length: int) -> dict[str, list[int]]:
        """Return a model's inputs of at most `max_length` ids. Only the passage is truncated."""
        passage = passage[: max(0, max_length - self.special - len(query))]
        first, second = self.before + query + self.between, passage + self.after
        inputs = {"input_ids": first + second}
        if self.types:
            first_type, second_type = self.types
            inputs["token_type_ids"] = [first_type] * len(first) + [second_type] * len(second)
        return inputs


def _tokenize(
    samples: Path, tokenizer: PreTrainedTokenizerBase, limit: int, folder: Path, block: int = 1000
) -> None:
    """Write FILES: the ids of each distinct text, and the samples with the texts' numbers."""
    numbers: dict[bytes, int] = {}
    new_texts: list[str] = []

    def number(text: str) -> int:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest not in numbers:
            numbers[digest] = len(numbers)
            new_texts.append(text)
        return numbers[digest]

    rows = read_jsonl(samples, ("query", "pos", "neg"))
    with (
        pa.ipc.new_file(str(folder / "texts.arrow"), TEXTS) as texts_out,
        pa.ipc.new_file(str(folder / "rows.arrow"), ROWS) as rows_out,
        tqdm(desc="tokenise", unit="sample", mininterval=1) as bar,
    ):
        while read := list(itertools.islice(rows, block)):
            numbered = []
            for row in read:
                _check(samples, row)
                numbered.append(
                    {"query": number(row["query"])}
                    | {side: [number(text) for text in row[side]] for side in ("pos", "neg")}
                    | {name: row.get(name) for name in NUMBERS}
                )
            rows_out.write_batch(pa.RecordBatch.from_pylist(numbered, ROWS))
            ids = []
            if new_texts:
                ids = tokenizer(
                    new_texts, add_special_tokens=False, truncation=True, max_length=limit
                )["input_ids"]
            texts_out.write_batch(pa.RecordBatch.from_pylist([{"ids": one} for one in ids], TEXTS))
            new_texts.clear()
            bar.update(len(read))
    if not numbers:
        raise InputError(f"{samples}: no samples; rerun the stage that writes it")


def _check(samples: Path, row: dict) -> None:
    for side in ("pos", "neg"):
        if not row[side]:
            raise InputError(
                f"{samples}: the sample of {row['query']!r} has no {side!r}; a group needs a "
                "positive and a negative, add one or remove the sample"
            )
    for name, side in NUMBERS.items():
        if row.get(name) is not None and (reason := _misfit(row[name], row[side], name)):
            raise InputError(f"{samples}: the sample of {row['query']!r} has {name!r} {reason}")


def _misfit(numbers: object, texts: list[str], name: str) -> str | None:
    """Return why the entry `name` cannot belong to the texts, and what to do; None if it can."""
    if not isinstance(numbers, list) or len(numbers) != len(texts):
        count = len(numbers) if isinstance(numbers, list) else "no list"
        return f"({count}) for {len(texts)} texts; write one number for each"
    weights = name == "pos_weights"
    for number in numbers:
        known = isinstance(number, int | float) and not isinstance(number, bool)
        if not known or not math.isfinite(number) or (weights and number <= 0):
            return f"with {number!r}; write a {'number above 0' if weights else 'finite number'}"
    return None


def _marker(key: str, folder: Path) -> bytes:
    """Return what the file `key` holds: the digests of all input and of the files written."""
    files = [folder / name for name in FILES]
    return " ".join([key, *(file_digest(path) for path in files if path.is_file())]).encode()


def _memory_map(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _find(ids: list[int], part: list[int], start: int) -> int:
    """Return where `part` starts in `ids`, from `start` on."""
    return next(i for i in range(start, len(ids)) if ids[i : i + len(part)] == part)
