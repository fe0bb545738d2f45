"""Stage prepare: raw tables -> clean passages and questions by split.

python src/prepare.py data/prepared metrics/data.json
"""

import re
from pathlib import Path

from tunerank.core.files import replacing, write_json, write_jsonl
from tunerank.core.stage import run_stage
from tunerank.data.passages import SPLITS
from tunerank.data.preparation.prepare import prepare, summarise
from tunerank.data.readers.cells import place
from tunerank.data.readers.raw import Raw, read_raw
from tunerank.data.readers.splits import split_of
from tunerank.params.load import load

HTML_TAG = re.compile(
    r"</?(a|article|b|blockquote|body|br|center|code|d[dlt]|div|em|font|h[1-6]|hr|html|i|img|li|ol"
    r"|p|pre|s|script|section|small|span|strong|style|su[bp]|table|tbody|td|th|thead|tr|u|ul)"
    r"(\s[^<>]*)?/?>",
    re.IGNORECASE,
)


def main(prepared_folder: str, data_json: str) -> None:
    params = load()
    raw = read_raw(params.prepare.raw, plain=bool(params.prepare.columns))
    if raw.recognised:
        print(raw.recognised)
    name = raw.qa_name
    prepared = prepare(raw.qa, raw.corpus, params.prepare, name, raw.corpus_name, by_files(raw))

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
        print(f"dropped {place(name, drop['row'])}: {drop['reason']}")
    print(
        f"{summary['passages']} passages; questions: {by_split(summary['questions'])}; "
        f"{len(prepared.dropped)} rows dropped"
    )
    if "relevant" in summary:
        relevant, negatives = by_split(summary["relevant"]), by_split(summary["negatives"])
        print(f"passages of the questions: relevant: {relevant}; judged wrong: {negatives}")
    seen, unseen = summary["test_seen"], summary["test_unseen"]
    print(f"test questions on passages seen in training: {seen}, unseen: {unseen}")
    for line in prepared.notes:
        print(line)
    if params.prepare.valid_fraction and not prepared.questions["valid"]:
        print(
            f"{name}: too few training questions to draw validation questions from; add some "
            "about another passage, or name valid rows in column 'dataset'"
        )
    if tags := [tag[1] for row in prepared.passages if (tag := HTML_TAG.search(row["text"]))]:
        print(
            f"{name if raw.corpus is None else raw.corpus_name}: HTML tags such as <{tags[0]}> in "
            f"{len(tags)} of {len(prepared.passages)} passages; they count among the characters "
            "shown"
        )


def by_files(raw: Raw) -> bool:
    """Return whether files of the raw data are named after their splits."""
    several = isinstance(next(iter(raw.qa.index), None), str)
    return several or bool(split_of(Path(raw.qa_name).stem))


def by_split(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items())


if __name__ == "__main__":
    run_stage(main)
