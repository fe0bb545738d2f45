"""Stage prepare: raw tables -> clean passages and questions by split.

python src/prepare.py data/prepared metrics/data.json
"""

from tunerank.core.files import replacing, write_json, write_jsonl
from tunerank.core.stage import run_stage
from tunerank.data.passages import SPLITS
from tunerank.data.preparation.prepare import prepare, summarise
from tunerank.data.readers.tables import find_tables, read_table
from tunerank.params.load import load


def main(prepared_folder: str, data_json: str) -> None:
    params = load()
    qa_path, corpus_path = find_tables(params.prepare.raw)
    corpus = read_table(corpus_path) if corpus_path else None
    qa = read_table(qa_path)
    prepared = prepare(qa, corpus, params.prepare, str(qa_path), str(corpus_path))

    summary = summarise(prepared)
    with replacing(prepared_folder) as folder:
        passages = ({"id": passage["id"], **passage} for passage in prepared.passages)
        write_jsonl(folder / "corpus.jsonl", passages)
        for split in SPLITS:
            write_jsonl(folder / f"{split}.jsonl", prepared.questions[split])
        write_jsonl(folder / "dropped.jsonl", prepared.dropped)
        write_json(data_json, summary)

    for key, other in prepared.merged.items():
        print(f"passage {key!r} has the same text as {other!r}: merged into {other!r}")
    for drop in prepared.dropped:
        print(f"dropped {qa_path}, row {drop['row']}: {drop['reason']}")
    counts = ", ".join(f"{count} {split}" for split, count in summary["questions"].items())
    print(
        f"{summary['passages']} passages; questions: {counts}; {len(prepared.dropped)} rows dropped"
    )
    seen, unseen = summary["test_seen"], summary["test_unseen"]
    print(f"test questions on passages seen in training: {seen}, unseen: {unseen}")


if __name__ == "__main__":
    run_stage(main)
