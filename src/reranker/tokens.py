"""Training samples as token ids: every distinct query and passage is tokenised once, in batches, and kept on disk.

FlagEmbedding 1.4.2 tokenises a pair when its turn comes: it encodes both texts, decodes them and encodes them again together, and a
query again for each of its passages. Here pairs are joined from ids by the tokenizer's own template, with the same result; but
where a text begins with an unknown character, that detour loses a piece that ranking sees, and this does not.
Memory does not grow with the texts: of each distinct one it holds a digest of 16 bytes while the file is made, none afterwards.
"""

import hashlib
import itertools
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from reranker.errors import InputError
from reranker.files import file_digest, read_jsonl, replacing

FILES = "texts.arrow", "rows.arrow"
IDS = pa.schema([("ids", pa.list_(pa.int32()))])
ROWS = pa.schema(
    [("query", pa.int64())]
    + [(side, pa.list_(pa.int64())) for side in ("pos", "neg")]
    + [(f"{side}_scores", pa.list_(pa.float64())) for side in ("pos", "neg")]
)


class TokenizedSamples:
    """A samples file whose texts are numbers, and the ids of each; both are mapped into memory, not loaded.

    Args:
        samples: FlagEmbedding's jsonl; limit: ids of a text that are kept.
        folder: where ids and rows are; made anew where it is of another file, tokenizer or limit, or not as it was made.
    """

    def __init__(self, samples: Path, tokenizer: PreTrainedTokenizerBase, limit: int, folder: Path):
        key = hashlib.sha256(f"{file_digest(samples)}:{limit}:{tokenizer.backend_tokenizer.to_str()}".encode()).hexdigest()
        marker = folder / "key"
        if not marker.is_file() or marker.read_bytes() != _marked(key, folder):
            with replacing(folder) as partial:
                partial.mkdir()
                _tokenize(samples, tokenizer, limit, partial)
                (partial / "key").write_bytes(_marked(key, partial))
        self.texts, self.rows = (_mapped(folder / name) for name in FILES)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> dict:
        """query: a text's number; pos, neg: lists of them; pos_scores, neg_scores: their teacher's, or None."""
        return {name: self.rows[name][index].as_py() for name in ROWS.names}

    def ids(self, text: int) -> list[int]:
        """Of a text, without special tokens."""
        return self.texts["ids"][text].values.to_pylist()


class Pairs:
    """Joins the ids of two texts as the tokenizer itself does: special tokens before, between and behind, token types."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b"))
        whole = tokenizer("a", "b")
        ids, types = whole["input_ids"], whole.get("token_type_ids")
        at = _find(ids, first, 0)
        then = _find(ids, second, at + len(first))
        self.parts = ids[:at], ids[at + len(first) : then], ids[then + len(second) :]
        self.special = sum(map(len, self.parts))
        # Of the first text with what stands before and between, and of the second with what stands behind.
        self.types = types and (types[at], types[then])

    def join(self, query: list[int], passage: list[int], max_length: int) -> dict[str, list[int]]:
        """A model's inputs, of at most `max_length` ids; the passage alone is cut."""
        before, between, after = self.parts
        passage = passage[: max(0, max_length - self.special - len(query))]
        ids = before + query + between + passage + after
        if not self.types:
            return {"input_ids": ids}
        first = len(before) + len(query) + len(between)
        return {"input_ids": ids, "token_type_ids": [self.types[0]] * first + [self.types[1]] * (len(ids) - first)}


def _tokenize(samples: Path, tokenizer: PreTrainedTokenizerBase, limit: int, folder: Path, block: int = 1000) -> None:
    numbers: dict[bytes, int] = {}
    new: list[str] = []

    def number(text: str) -> int:
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in numbers:
            numbers[key] = len(numbers)
            new.append(text)
        return numbers[key]

    rows = (_checked(samples, row) for row in read_jsonl(samples, ("query", "pos", "neg")))
    with (
        pa.ipc.new_file(str(folder / "texts.arrow"), IDS) as texts_out,
        pa.ipc.new_file(str(folder / "rows.arrow"), ROWS) as rows_out,
        tqdm(desc="tokenise", unit="sample", mininterval=1) as bar,
    ):
        while read := list(itertools.islice(rows, block)):
            numbered = [
                {"query": number(row["query"])}
                | {side: [number(text) for text in row[side]] for side in ("pos", "neg")}
                | {name: row.get(name) for name in ("pos_scores", "neg_scores")}
                for row in read
            ]
            rows_out.write_batch(pa.RecordBatch.from_pylist(numbered, ROWS))
            ids = tokenizer(new, add_special_tokens=False, truncation=True, max_length=limit)["input_ids"] if new else []
            texts_out.write_batch(pa.RecordBatch.from_pylist([{"ids": one} for one in ids], IDS))
            new.clear()
            bar.update(len(read))
    if not numbers:
        raise InputError(f"{samples}: there is no sample to train on")


def _checked(samples: Path, row: dict) -> dict:
    if not row["pos"] or not row["neg"]:
        raise InputError(
            f"{samples}: the sample of {row['query']!r} has no {'neg' if row['pos'] else 'pos'}; a group needs one of each"
        )
    return row


def _marked(key: str, folder: Path) -> bytes:
    """What the folder's marker holds: the key of what it was made from, and digests of what it was made into."""
    files = [folder / name for name in FILES]
    return " ".join([key, *(file_digest(path) for path in files if path.is_file())]).encode()


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _find(ids: list[int], part: list[int], start: int) -> int:
    return next(at for at in range(start, len(ids)) if ids[at : at + len(part)] == part)
