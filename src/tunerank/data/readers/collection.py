"""Read a collection with judgements, as BEIR, MS MARCO and TREC have it: corpus, queries, qrels."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tunerank.core.errors import InputError
from tunerank.data.readers.cells import place
from tunerank.data.readers.forms import PASSAGES, QUESTIONS, Columns, Form
from tunerank.data.readers.identified import read_identified
from tunerank.data.readers.splits import split_of, splits_of
from tunerank.data.readers.tables import READERS
from tunerank.data.readers.text import decode

QRELS = re.compile(r"qrels?|judge?ments")
QUERIES = re.compile(r"quer(y|ies)|topics?")
CORPUS = {"corpus", "collection", "documents", "docs"}
PLAIN = {"", ".tsv", ".txt"}
HEADER = {
    *("query-id", "query_id", "qid", "query", "topic", "corpus-id", "corpus_id", "docid"),
    *("doc_id", "doc-id", "pid", "score", "rel", "relevance", "label"),
}


@dataclass
class Parts:
    """The files of a collection; the first corpus is read."""

    qrels: list[Path]
    queries: list[Path]
    corpora: list[Path]

    @property
    def found(self) -> bool:
        """Whether the folder is a collection, which may lack a part.

        Without qrels, files such as train_queries.csv may be tables of another form.
        """
        if self.qrels:
            return bool(self.queries or self.corpora)
        return bool(self.corpora) and any(not split_of(path.stem) for path in self.queries)

    @property
    def complete(self) -> bool:
        """Whether the folder has all parts of a collection."""
        return bool(self.qrels and self.queries and self.corpora)

    def judged(self, folder: Path) -> Path:
        """Return what messages call the judgements: their file, or the folder that has them all."""
        first, *others = self.qrels
        if not others:
            return first
        return first.parent if {path.parent for path in others} == {first.parent} else folder


def collection_parts(files: list[Path]) -> Parts:
    """Return the qrels, the queries and the corpora among the files of a folder."""
    parts = Parts([], [], [])
    for path in files:
        words = re.split(r"[^a-z]+", path.name.casefold())
        texts = PLAIN | {*READERS}
        if path.parent.name.casefold() == "qrels" or any(map(QRELS.fullmatch, words)):
            if path.suffix.lower() in PLAIN | {".qrels", ".qrel"} or _numbered(path):
                parts.qrels.append(path)
        elif path.suffix.lower() in texts | {".xml", ".topics"} or _numbered(path):
            if any(map(QUERIES.fullmatch, words)):
                parts.queries.append(path)
            elif path.suffix.lower() in texts and path.stem.casefold() in CORPUS:
                parts.corpora.append(path)
    return parts


def _numbered(path: Path) -> bool:
    """Whether a name ends with a number or a range, as topics.301-450 does."""
    return bool(re.fullmatch(r"\.[\d-]+", path.suffix))


def read_collection(folder: Path, parts: Parts) -> Form:
    """Return the judged questions with their passages' ids, and the corpus.

    Negative grades become 0. Queries without judgement, passages without text, and judgements of
    texts that are empty are left out. A passage that has only a title has it as its text.

    Raises:
        InputError: a part is missing, a line is not as in these forms, an id has two texts, or a
            judgement names an unknown query or passage.
    """
    for kind, files in (("corpus", parts.corpora), ("queries", parts.queries)):
        if not files:
            raise InputError(f"{folder}: no {kind}.jsonl in this folder, which has qrels; add it")
    if not parts.qrels:
        raise InputError(f"{folder}: queries and a corpus, but no folder qrels; add qrels/test.tsv")
    if len(parts.corpora) > 1:
        names = " and ".join(path.name for path in parts.corpora[:2])
        raise InputError(f"{folder}: both {names}; keep one of them")
    unused: dict[str, None] = {}
    asides: Counter[str] = Counter()
    queries: dict[str, str] = {}
    for path in parts.queries:
        for number, row in read_identified(path, unused):
            key, text = row["id"], row["text"] or row["title"]
            if queries.setdefault(key, text) != text:
                where = place(path, number)
                raise InputError(f"{where}: query {key!r} already has another text; rename one")
    corpus, passages = read_corpus(parts.corpora[0], unused, asides)
    rows = Columns(QUESTIONS)
    judged: set[str] = set()
    splits, notes = splits_of(parts.qrels)
    named = parts.judged(folder)
    for path, number, query, passage, score in _judgements(splits, queries, passages, asides):
        judged.add(query)
        asked = {"question": queries[query], "query_id": query}
        label = number if path == named else f"{path.relative_to(named).as_posix()}:{number}"
        rows.add(label, uuid=passage, label=score, dataset=splits[path], **asked)
    asides["queries without judgement"] = len(queries) - len(judged)
    suffixes = {path.suffix.lower() for path in (*parts.queries, *parts.corpora)}
    name = "a BEIR folder" if suffixes == {".jsonl"} else "a TREC collection"
    return Form(name, rows.frame(), corpus, list(unused), asides, notes)


def read_corpus(
    path: Path, unused: dict[str, None], asides: Counter[str]
) -> tuple[pd.DataFrame, dict[str, bool]]:
    """Return a corpus with our columns, and id -> whether it is in it, which needs a text.

    Args:
        unused: gets the names of columns that are not used.
        asides: counts the passages without text.

    Raises:
        InputError: it cannot be read, or an id has two texts.
    """
    columns = Columns(PASSAGES)
    numbers: dict[str, int] = {}
    with_text: dict[str, bool] = {}
    for number, row in read_identified(path, unused):
        key, text, title = row["id"], row["text"], row["title"]
        text, title = (text, title) if text else (title, "")
        if key in numbers:
            at = numbers[key]
            if (columns.cells["doc"][at] if at >= 0 else "") != text:
                raise InputError(
                    f"{place(path, number)}: passage {key!r} already has another text; rename one"
                )
            asides["passages given twice"] += 1
            continue
        numbers[key] = len(columns.labels) if text else -1
        with_text[key] = bool(text)
        if text:
            columns.add(number, uuid=key, doc=text, title=title, document=row["document"])
        else:
            asides["passages without text"] += 1
    return columns.frame(), with_text


def _judgements(
    splits: dict[Path, str],
    queries: dict[str, str],
    passages: dict[str, bool],
    asides: Counter[str],
) -> Iterator[tuple[Path, int, str, str, str]]:
    """Yield (file, line, query, passage, grade) of each judgement."""
    scores: dict[tuple[str, str, str], str] = {}
    for path, split in splits.items():
        for number, query, passage, score in read_qrels(path):
            for kind, key, known in (("query", query, queries), ("passage", passage, passages)):
                if key not in known:
                    other = "queries" if kind == "query" else "corpus"
                    raise InputError(
                        f"{path}, line {number}: {kind} {key!r} is not in the {other}; add it "
                        "there, or delete the line"
                    )
            if not queries[query] or not passages[passage]:
                asides["judgements of empty texts"] += 1
                continue
            if score.startswith("-"):
                asides["negative scores, read as 0"] += 1
                score = "0"
            pair = split, query, passage
            if pair not in scores:
                scores[pair] = score
                yield path, number, query, passage, score
            elif scores[pair] == score:
                asides["judgements given twice"] += 1
            else:
                raise InputError(
                    f"{path}, line {number}: score {score} of query {query!r} and passage "
                    f"{passage!r}, which have score {scores[pair]} above; delete one of the lines"
                )


def read_qrels(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield (line, query, passage, score) of a qrels file, with whole numbers as scores.

    Its lines are query, passage, score (BEIR, with a header) or query, 0, passage, score (TREC),
    separated by tabs or blanks.

    Raises:
        InputError: a line is not so.
    """
    text = decode(path)
    if not text.strip():
        raise InputError(f"{path}: is empty")
    for number, line in enumerate(text.split("\n"), 1):
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if not any(cells) or number == 1 and HEADER & {cell.casefold() for cell in cells}:
            continue
        if len(cells) not in (3, 4):
            raise InputError(
                f"{path}, line {number}: {len(cells)} cells; needed are query, passage and score, "
                "or TREC's query, 0, passage and score"
            )
        score = re.fullmatch(r"(-?[0-9]+)(\.0*)?", cells[-1])
        if not score:
            raise InputError(
                f"{path}, line {number}: score {cells[-1]!r} is not a whole number; correct it"
            )
        yield number, cells[0], cells[-2], score[1]
