"""Stage prepare: raw tables -> clean passages and questions by split.

python src/prepare.py data/prepared metrics/data.json
"""

import re
import sys

from tunerank.core.files import replacing, write_json, write_jsonl
from tunerank.core.stage import run_stage
from tunerank.data.passages import SPLITS
from tunerank.data.preparation.prepare import REPEATED, prepare, summarise
from tunerank.data.readers.tables import find_tables, read_table
from tunerank.params.load import load

HTML_TAG = re.compile(
    r"</?(a|article|b|blockquote|body|br|center|code|d[dlt]|div|em|font|h[1-6]|hr|html|i|img|li|ol"
    r"|p|pre|s|script|section|small|span|strong|style|su[bp]|table|tbody|td|th|thead|tr|u|ul)"
    r"(\s[^<>]*)?/?>",
    re.IGNORECASE,
)


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
    for line in prepared.unused:
        print(line)
    if params.prepare.valid_fraction and not prepared.questions["valid"]:
        print(
            f"{qa_path}: too few training questions to draw validation questions from; add some "
            "about another passage, or name valid rows in column 'dataset'"
        )
    if tags := [tag[1] for row in prepared.passages if (tag := HTML_TAG.search(row["text"]))]:
        print(
            f"{corpus_path or qa_path}: HTML tags such as <{tags[0]}> in {len(tags)} of "
            f"{len(prepared.passages)} passages; they count among the characters shown"
        )
    if repeated := summary["dropped"].get(REPEATED):
        print(
            f"WARNING: {qa_path}: rows dropped as {REPEATED}: {repeated}; this passage counts as "
            "wrong for the question, in training and test",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_stage(main)
