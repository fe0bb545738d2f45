"""Make training samples for a general base from pairs of a query and its passage.

    python experiments/general_samples.py pairs.jsonl.xz passages.jsonl.xz models/retriever \\
      .cache/general/samples [--limit 1000]

See experiments/general-base.sh. pairs has query, pos, title, doc, kind (question, or heading: the
query is a heading) and, for headings, path: document > headings. passages has doc, title (the same
path) and text. Both may be compressed by xz.

A sample has its own passage and NEGATIVES others: five of the 60 that the dense retriever finds
nearest, one of the same document for a question, and random ones. A passage of those 60 is left out
if it scores above the positive by more than the margin of its kind, or if it belongs to the pair's
own section, which may answer too. Titles are those of documents: a section's heading, which only
some passages would have, is often the query itself. Vectors are kept in the folder, so that a run
that was killed continues.
"""

import argparse
import hashlib
import json
import lzma
import random
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import numpy as np
import torch

from tunerank.core.errors import run_command
from tunerank.core.files import replacing, write_jsonl
from tunerank.data.passages import Passage, windows
from tunerank.models.device import best_device
from tunerank.params.data import Units
from tunerank.params.load import load
from tunerank.retrieval.retrievers import DenseEncoder
from tunerank.samples.units import Unit, draw_unit

NEGATIVES, HARD, NEAREST = 7, 5, 60
MARGIN = {"question": 0.02, "heading": -0.005}
TEMPERATURE = 0.02
"""Cosines divided by it are the teacher's logits."""
BLOCK = 2**24
"""Cosines in memory at a time."""


def rows(path: str, limit: int) -> Iterator[dict]:
    """Yield the objects of a jsonl file, at most `limit` of them."""
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number == limit:
                return
            yield json.loads(line)


def nearest_part(query: str, text: str, size: int) -> tuple[int, int]:
    """Return the first span of `size` characters that shares most character pairs with the query.

    >>> text = "It comes in red. It does weigh 3 kg. It is long."
    >>> nearest_part("how much does it weigh", text, 16)
    (16, 32)
    """
    wanted = {query[i : i + 2].lower() for i in range(len(query) - 1)}
    shared = np.cumsum([0] + [text[i : i + 2].lower() in wanted for i in range(len(text))])
    return max(
        windows(text, size, max(1, size // 4)), key=lambda span: shared[span[1]] - shared[span[0]]
    )


def vectors(
    folder: Path, name: str, encoder: DenseEncoder, texts: list[str], prefix: str
) -> np.ndarray:
    """Return the texts' vectors, from an earlier call if it had the same texts."""
    path = (
        folder
        / f"{name}-{hashlib.sha256(json.dumps([prefix, *texts]).encode()).hexdigest()[:16]}.npy"
    )
    if not path.exists():
        found = encoder.encode(texts, prefix, name)
        with replacing(path) as partial, open(partial, "wb") as out:
            np.save(out, found)
    return np.load(path, mmap_mode="r")


def nearest(
    queries: np.ndarray, passages: np.ndarray, count: int
) -> Iterator[tuple[list[int], list[float]]]:
    """Yield the passages of each query's `count` largest cosines, and these cosines."""
    device = best_device()
    against = torch.from_numpy(np.array(passages)).to(device).T
    step = max(1, BLOCK // len(passages))
    for start in range(0, len(queries), step):
        scores, found = (
            torch.from_numpy(np.array(queries[start : start + step])).to(device) @ against
        ).topk(min(count, len(passages)))
        yield from zip(found.tolist(), scores.tolist())


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("pairs", "passages", "retriever", "folder"):
        parser.add_argument(name)
    parser.add_argument(
        "--limit", type=int, default=-1, help="pairs, and passages, at most (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder, params = Path(options.folder), load()
    folder.mkdir(parents=True, exist_ok=True)
    units = params.samples.model_copy(
        update={
            "units": Units(view=0, window=0.75, whole=0.25),
            "window_sizes": [64, 320],
            "untitled": 0.4,
        }
    )

    passages: dict[str, int] = {}  # text -> number
    found: list[
        tuple[Passage, str, str]
    ] = []  # of each number: the passage, its document, its section
    pairs = list(rows(options.pairs, options.limit))
    listed = [
        (row["text"], row["title"], row["doc"]) for row in rows(options.passages, options.limit)
    ]
    for text, path, document in listed + [
        (pair["pos"], pair.get("path") or pair["title"], pair["doc"]) for pair in pairs
    ]:
        if text not in passages:
            passages[text] = len(found)
            found.append((Passage(path.split(" > ")[0], text), document, path))
    of_document: dict[str, list[int]] = {}
    for number, (_, document, _) in enumerate(found):
        of_document.setdefault(document, []).append(number)

    encoder = DenseEncoder(
        options.retriever, params.retriever, 65536 if torch.cuda.is_available() else 2048
    )
    whole = vectors(
        folder,
        "passages",
        encoder,
        [passage.view() for passage, *_ in found],
        params.retriever.passage_prefix,
    )
    asked = vectors(
        folder, "queries", encoder, [pair["query"] for pair in pairs], params.retriever.query_prefix
    )

    def samples() -> Iterator[dict]:
        for number, (pair, (near, scores)) in enumerate(zip(pairs, nearest(asked, whole, NEAREST))):
            rng, own = random.Random(f"{options.seed}:{number}"), passages[pair["pos"]]
            document, section = found[own][1:]
            ceiling = float(asked[number] @ whole[own]) + MARGIN[pair["kind"]]
            usable = [
                p
                for p, score in zip(near, scores)
                if p != own and score <= ceiling and found[p][1:] != (document, section)
            ]
            hard = usable[:20]
            chosen = rng.sample(hard, min(HARD, len(hard)))
            if pair["kind"] == "question":
                siblings = [
                    p
                    for p in of_document[document]
                    if p != own and p not in chosen and found[p][2] != section
                ]
                if siblings:
                    chosen.append(rng.choice(siblings))
            while len(chosen) < NEGATIVES:
                other = rng.randrange(len(found))
                if other != own and other not in chosen:
                    chosen.append(other)
            unit = draw_unit(units, 0, options.seed, str(number))
            texts = [shown(unit, pair["query"], found[p][0]) for p in (own, *chosen)]
            logits = [
                round(float(asked[number] @ whole[p]) / TEMPERATURE, 4) for p in (own, *chosen)
            ]
            yield {
                "query": pair["query"],
                "pos": texts[:1],
                "neg": texts[1:],
                "pos_scores": logits[:1],
                "neg_scores": logits[1:],
            }

    with replacing(folder / "train.jsonl") as partial:
        count = write_jsonl(partial, samples())
    print(f"{folder}/train.jsonl: {count} samples, {len(found)} passages")


def shown(unit: Unit, query: str, passage: Passage) -> str:
    """Return the text that the unit takes from a passage."""
    size = min(unit.size, len(passage.text))
    return unit.text(passage, nearest_part(query, passage.text, size) if size else (0, 0))


if __name__ == "__main__":
    run_command(main)
