"""Build FlagEmbedding's jsonl samples from the training questions and their candidates.

python src/samples.py data/prepared data/candidates models/teacher data/samples metrics/samples.json
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from tunerank.core.errors import InputError
from tunerank.core.files import read_jsonl, replacing, write_json, write_jsonl
from tunerank.core.stage import run_stage
from tunerank.data.passages import SPLITS, read_passages
from tunerank.params.load import load
from tunerank.samples.build import build, evidence_shown, join_candidates, scored_by_teacher
from tunerank.samples.negatives import held_out_passages, without_false_negatives
from tunerank.samples.texts import Corpus


def main(
    prepared: str, candidate_folder: str, teacher: str, sample_folder: str, samples_json: str
) -> None:
    params = load()
    corpus = read_passages(Path(prepared, "corpus.jsonl"), params.retrieve.title)
    train, candidates = Path(prepared, "train.jsonl"), Path(candidate_folder, "train.jsonl")
    held_out = held_out_passages(
        {split: read_jsonl(Path(prepared, f"{split}.jsonl"), ("relevant",)) for split in SPLITS}
    )
    about: dict[str, list[dict]] = {}
    counts, several = Counter(), False
    for question in read_jsonl(train):
        counts["questions"] += 1
        several = several or len(question["relevant"]) > 1
        if params.samples.pair in ("qd", "qa"):
            for item in question["relevant"]:
                about.setdefault(item["passage"], []).append(item)

    questions = count_evidence(join_candidates(train, candidates, corpus), corpus, counts)
    questions = tqdm(questions, desc="samples", total=counts["questions"], unit="question")
    samples = build(params, corpus, questions, held_out, about, several)
    if params.samples.teacher == "reranker":
        samples = scored_by_teacher(samples, params, teacher)
    margin = params.samples.teacher_margin
    if margin is not None:
        samples = filter(None, (without_false_negatives(sample, margin) for sample in samples))

    with replacing(sample_folder) as folder:
        count = write_jsonl(folder / "train.jsonl", count_negatives(samples, counts))
        if not count:
            raise InputError(
                "samples: no negative is left for any training question; loosen "
                "samples.absolute_margin, samples.relative_margin and samples.teacher_margin, "
                "or add passages"
            )
    write_json(samples_json, {"samples": count, **summary(counts)})
    print(
        f"{count} samples with {counts['negatives'] / count:.1f} negatives each from "
        f"{counts['questions']} questions"
    )


def count_evidence(
    questions: Iterable[tuple[dict, list[dict]]], corpus: Corpus, counts: Counter
) -> Iterator[tuple[dict, list[dict]]]:
    """Yield the questions with their candidates; count their evidence, and what is shown of it."""
    for question, candidates in questions:
        for item in question["relevant"]:
            shown = evidence_shown(item, candidates, corpus)
            counts["evidence"] += shown is not None
            counts["evidence_shown"] += shown is True
        yield question, candidates


def count_negatives(samples: Iterable[dict], counts: Counter) -> Iterator[dict]:
    """Yield the samples as they are written, and count their negatives."""
    for sample in samples:
        counts["negatives"] += len(sample["neg"])
        counts["explicit_negatives"] += sample.pop("explicit_negatives", 0)
        yield sample


def summary(counts: Counter) -> dict[str, int | float | None]:
    """Return the counts of metrics/samples.json, and the share of evidence that is shown.

    `explicit_negatives` is there only if a sample has one.
    """
    share = round(counts["evidence_shown"] / counts["evidence"], 6) if counts["evidence"] else None
    explicit = counts["explicit_negatives"]
    return {
        "negatives": counts["negatives"],
        **({"explicit_negatives": explicit} if explicit else {}),
        "questions": counts["questions"],
        "evidence_shown": share,
    }


if __name__ == "__main__":
    run_stage(main)
