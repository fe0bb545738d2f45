"""Retrieve the candidates of every question, by BM25 and the dense retriever or by your own search.

    python src/retrieve.py data/prepared models/retriever data/runs data/candidates

With `retrieve.run` they are the results of your own search in data/runs.
"""

from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl, regular, replacing, write_jsonl
from tunerank.core.stage import run_stage
from tunerank.data.passages import SPLITS, read_passages
from tunerank.data.questions import grades
from tunerank.models.readable import SAMPLED, sampled, warn_unknown
from tunerank.params.load import load
from tunerank.retrieval.candidates import Retrieval
from tunerank.retrieval.own_search import OwnSearch
from tunerank.retrieval.retrievers import DenseEncoder
from tunerank.retrieval.runs import read_run


def main(prepared: str, retriever: str, runs: str, candidate_folder: str) -> None:
    params = load()
    corpus = Path(prepared, "corpus.jsonl")
    paths = {split: Path(prepared, f"{split}.jsonl") for split in SPLITS}
    passages = read_passages(corpus, params.retrieve.title)
    if params.retrieve.run:
        questions = {split: list(read_checked(path, passages)) for split, path in paths.items()}
        path = Path(runs, params.retrieve.run)
        run, notes = read_run(path, questions, passages, merged_ids(corpus))
        print("\n".join(notes))
    encoder = DenseEncoder(retriever, params.retriever) if params.retrieve.dense else None
    if encoder:
        texts = [passage.view() for passage in sampled(list(passages.values()))]
        for path in paths.values():
            texts += [row["question"] for row in islice(read_checked(path, passages), SAMPLED)]
        warn_unknown(encoder.tokenizer, retriever, texts, "another retriever (retriever.source)")
    if params.retrieve.run:
        asked = [question for rows in questions.values() for question in rows]
        search = OwnSearch(passages, encoder, params.retrieve, run, asked)
    else:
        search = Retrieval(passages, encoder, params.retrieve)
    with replacing(candidate_folder) as folder:
        for split, path in paths.items():
            with open(regular(path), "rb") as lines:
                total = sum(1 for _ in lines)
            retrieved = search.candidates(read_checked(path, passages), split, total)
            write_jsonl(
                folder / f"{split}.jsonl",
                ({"id": question["id"], "candidates": found} for question, found in retrieved),
            )


def read_checked(path: Path, passages: Container[str]) -> Iterator[dict]:
    """Yield the questions of a split.

    Raises:
        InputError: a passage of a question, relevant or judged not to be, is not in the corpus.
    """
    for question in read_jsonl(path, ("id", "question", "relevant")):
        relevant = [("is about passage", passage) for passage in grades(question)]
        negatives = [("has the negative", passage) for passage in question.get("negatives", ())]
        for what, passage in relevant + negatives:
            if passage not in passages:
                raise InputError(
                    f"{path}: question {question['id']!r} {what} {passage!r}, which is not in "
                    "corpus.jsonl; run dvc repro prepare --force"
                )
        yield question


def merged_ids(corpus: Path) -> dict[str, str]:
    """Return the other ids of passages that `prepare` merged -> the id that is left."""
    rows = read_jsonl(corpus, ("id",))
    return {other: row["id"] for row in rows for other in row.get("also", ())}


if __name__ == "__main__":
    run_stage(main)
