"""Parameters of the stages prepare, retrieve and samples."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tunerank.params.base import Count, Fraction, Group, Number, Positive

TABLES = {
    "qa": (
        *("question", "answer", "context", "doc", "uuid", "qa_type", "dataset", "label"),
        "query_id",
    ),
    "corpus": ("uuid", "doc", "title", "document"),
}
"""Our columns of the questions' table and of the corpus table.

Rows with one question are one question with several passages. `label` is the grade of the row's
passage: 0 is wrong, 1 right, more better. Without the column all are right. `query_id` is the
question's id; without it the id is made of the text.
"""


def check_mapping_form(columns: dict[str, Any]) -> dict[str, Any]:
    """Return `prepare.columns` as it is.

    Raises:
        ValueError: it mixes both forms, or a key or a value cannot be a column's name.
    """
    alone = [name for name in columns if name not in TABLES]
    if 0 < len(alone) < len(columns):
        raise ValueError(
            f"'{alone[0]}' stands beside a table's columns; put it under qa or under corpus too"
        )
    ours = tuple(dict.fromkeys(name for names in TABLES.values() for name in names))
    for table, mapping in {"": columns}.items() if alone else columns.items():
        if not isinstance(mapping, dict):
            raise ValueError(f"{table} has the columns of that table, as in {{uuid: id}}")
        names = TABLES.get(table, ours)
        for name, theirs in mapping.items():
            if name not in names:
                known = f"of the columns of {table}" if table else "of our columns"
                raise ValueError(f"{name!r} is none {known}: {', '.join(names)}")
            if not isinstance(theirs, str):
                raise ValueError(
                    f"'{name}' needs the name of a column, in quotes if it is a number"
                )
    return columns


class Prepare(Group):
    raw: str
    """A table of questions (csv, xlsx, jsonl, parquet), or a folder with `qa.*` and, optionally,
    `corpus.*`."""
    columns: Annotated[dict[str, Any], AfterValidator(check_mapping_form)]
    """Our name of a column -> its name in the tables, if they differ; or such a mapping for each of
    `qa` and `corpus`."""
    qa_types: list[str]
    """Kinds of question to keep (column `qa_type`); empty keeps all."""
    unicode: Literal["NFC", "NFKC"]
    valid_fraction: Fraction
    """Validation questions, if the table names no `valid` rows: those of this share of the training
    passages without test questions, at least one. If such passages have less than half of the
    training questions, it is this share of the training questions instead."""
    test_fraction: Fraction
    """Share of all passages, at least one, whose questions become test questions, if the table
    names no splits. Passages of a common question are drawn together; if most questions hang
    together so, it is this share of the questions instead."""
    split_seed: Count
    """Seed of these draws. Another `seed` changes training, but not which questions are tested."""

    @property
    def per_table(self) -> bool:
        """Whether `columns` has a mapping for each table."""
        return set(self.columns) <= set(TABLES)

    def mapping(self, table: Literal["qa", "corpus"]) -> dict[str, str]:
        """Return our name of a column -> its name in this table."""
        return self.columns.get(table, {}) if self.per_table else self.columns


RUN = re.compile("[a-z0-9][a-z0-9.-]*")
"""The name of a file or folder in data/runs; it names a row and columns of metrics too."""


def check_run(name: str) -> str:
    """Return `retrieve.run` as it is.

    Raises:
        ValueError: it is no name inside data/runs.
    """
    if not RUN.fullmatch(name):
        raise ValueError(
            "write the name of a file or folder inside data/runs, such as elastic.trec, in lower "
            "case letters, digits, '.' and '-'; null: BM25 and the dense retriever"
        )
    return name


class Retrieve(Group):
    run: Annotated[str, AfterValidator(check_run)] | None
    """Candidates of the user's own search, in place of BM25 and the dense retriever: a file in
    `data/runs`, or a folder there with one file a split. `first_stage` is its name."""
    depth: Positive
    """Dense candidates of each question, or those of `run`."""
    bm25_depth: Positive
    """BM25 candidates of each question (the article's ensemble: 4)."""
    dense_weight: Annotated[float, Field(ge=0)]
    """With 0, and `window` 0, only BM25 is used and the dense retriever does not run."""
    bm25_weight: Annotated[float, Field(ge=0)]
    rrf_k: Positive
    """Constant of reciprocal rank fusion: a list adds weight / (rrf_k + rank) to a candidate."""
    bm25_k1: Annotated[float, Field(ge=0)]
    bm25_b: Annotated[float, Field(ge=0, le=1)]
    window: Count
    """Characters of the windows that are searched besides whole passages; 0: no windows."""
    stride: Count
    """Characters from one window's start to the next; 0 if `window` is 0."""
    shown: Count
    """Characters of a view, the text that the reranker reads: the window nearest to the query is in
    its middle. 0: it reads whole passages."""
    views: Positive
    """Views of each of the first `views_depth` candidates, around the windows nearest to the query;
    they overlap by at most half. The best view's score is the passage's score. Other candidates
    have one view. Scoring time grows with the number of views."""
    views_depth: Count
    title: bool
    """Whether the passage's title (column `title` of the corpus table) stands before its text and
    before every window, in retrieval and in reranking."""

    @model_validator(mode="after")
    def consistent(self):
        if self.dense_weight + self.bm25_weight == 0:
            raise ValueError("dense_weight and bm25_weight are both 0: nothing would be retrieved")
        if (self.window == 0) != (self.stride == 0) or self.stride > self.window:
            raise ValueError(
                f"window {self.window} and stride {self.stride}: set stride from 1 to window, "
                "or both to 0"
            )
        if self.shown and not self.window or 0 < self.shown < self.window:
            raise ValueError(
                f"shown {self.shown} and window {self.window}: set shown to at least window, and "
                "window above 0, or shown to 0"
            )
        return self

    @property
    def dense(self) -> bool:
        """Whether the dense retriever runs: for its candidates, or to find the nearest windows."""
        return self.window > 0 or (self.dense_weight > 0 and not self.run)

    @property
    def first_stage(self) -> str | None:
        """The name of the user's own search: that of `run` without its suffix; None without."""
        return self.run and re.sub(r"\.[a-z]+$", "", self.run)

    @property
    def lists(self) -> list[tuple[str, int, float]]:
        """The rankings that are fused: (a candidate's field with its rank, depth, weight)."""
        if self.run:
            return [("run", self.depth, 1.0)]
        return [
            ("dense", self.depth, self.dense_weight),
            ("bm25", self.bm25_depth, self.bm25_weight),
        ]

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """The first stage's scores that the fused row adds: (name, a candidate's field)."""
        if self.run:
            return ((self.first_stage, "run_score"),)
        return (("dense", "dense_score"), ("bm25", "bm25_score"))


class Units(Group):
    """Relative shares of the training groups; they need not add up to 1."""

    view: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Groups of views as in reranking: `retrieve.shown` characters, or the whole passage."""
    window: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Groups of windows of `samples.window_sizes` characters."""
    whole: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Groups of whole passages."""

    @model_validator(mode="after")
    def consistent(self):
        if not self.view + self.window + self.whole:
            raise ValueError("view, window and whole are all 0: no group would have a text")
        return self


class Samples(Group):
    strategy: Literal["all", "hard"]
    """`all`: the article's construction. `hard`: negatives mined from the first stage's
    candidates."""
    pair: Literal["passage", "evidence", "both", "qd", "qa"]
    """The text that is paired with a question: the part of its passage nearest to the question
    (`passage`), the part around the evidence (`evidence`), one of these two at a time (`both`, only
    for `hard`), the evidence sentence (`qd`, the article's choice), or the answer (`qa`). `units`
    sets the size of a part."""
    units: Units
    window_sizes: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    """Smallest and largest number of characters of a window; the size is drawn uniformly."""
    untitled: Annotated[float, Field(ge=0, le=1)]
    """Share of the groups without titles."""
    neg_batch_size: Positive | None
    """`all`: negatives in one sample; null puts all of them into one."""
    n_neg_batch: Positive
    """`all`: maximum of samples a question."""
    negatives: Positive
    """`hard`: negatives in a sample, including the random ones and those that the data names."""
    random_negatives: Count
    """`hard`: negatives that are drawn from all training passages."""
    skip_top: Count
    """`hard`: candidates at the head of the list that are skipped."""
    window: Positive
    """`hard`: number of candidates after those; the hard negatives are drawn from them."""
    absolute_margin: Number | None
    """`hard`: a mined negative's dense score is at most the positive's minus this, which may be
    negative. Of several relevant passages it is the highest score."""
    relative_margin: Number | None
    """`hard`: a mined negative's dense score is at most (1 - this) times the positive's."""
    teacher: Literal["none", "retriever", "reranker"]
    """Source of the samples' pos_scores and neg_scores. `retriever`, only for `hard`: the dense
    first stage's cosine / 0.01, the temperature in the training of e5 and bge. `reranker`: the
    logits of the reranker in the group `teacher`."""
    teacher_margin: Number | None
    """Mined negatives with a teacher score above the best positive's minus this are dropped."""

    @model_validator(mode="after")
    def consistent(self):
        if self.window_sizes[0] > self.window_sizes[1]:
            raise ValueError(f"window_sizes {self.window_sizes}: put the smaller one first")
        if self.random_negatives > self.negatives:
            raise ValueError(
                f"random_negatives {self.random_negatives} exceeds negatives {self.negatives}"
            )
        if self.strategy == "all" and self.pair == "both":
            raise ValueError(
                "pair 'both' needs strategy 'hard': the article's samples have one text a question"
            )
        if self.teacher == "none" and self.teacher_margin is not None:
            raise ValueError("teacher_margin needs a teacher")
        if self.strategy == "all" and self.teacher == "retriever":
            raise ValueError(
                f"teacher {self.teacher!r} needs strategy 'hard': the article's samples have no "
                "retrieval scores"
            )
        return self
