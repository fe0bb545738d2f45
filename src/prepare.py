"""Raw tables -> clean passages and questions by split.

    python src/prepare.py data/prepared metrics/data.json
"""

from reranker.files import replacing, write_json, write_jsonl
from reranker.params import load
from reranker.passages import SPLITS
from reranker.questions import prepare, summarise
from reranker.stage import run_stage
from reranker.tables import find_tables, read_table


def main(prepared_folder: str, data_json: str) -> None:
    params = load()
    qa_path, corpus_path = find_tables(params.prepare.raw)
    corpus = read_table(corpus_path) if corpus_path else None
    prepared = prepare(read_table(qa_path), corpus, params.prepare, params.seed, str(qa_path), str(corpus_path))

    summary = summarise(prepared)
    with replacing(prepared_folder) as folder:
        write_jsonl(folder / "corpus.jsonl", ({"id": p["id"], **p} for p in prepared.passages))
        for split in SPLITS:
            write_jsonl(folder / f"{split}.jsonl", prepared.questions[split])
        write_jsonl(folder / "dropped.jsonl", prepared.dropped)
        write_json(data_json, summary)

    for key, other in prepared.merged.items():
        print(f"passage {key!r} has the text of {other!r}: one passage, {other!r}")
    for drop in prepared.dropped:
        print(f"dropped {qa_path}, row {drop['row']}: {drop['reason']}")
    counts = ", ".join(f"{count} {split}" for split, count in summary["questions"].items())
    print(f"{summary['passages']} passages; questions: {counts}; {len(prepared.dropped)} rows dropped")
    print(f"test questions on passages seen in training: {summary['test_seen']}, unseen: {summary['test_unseen']}")


if __name__ == "__main__":
    run_stage(main)
