"""Find what people agree on, and make rows of a questions' table of what the table lacks.

What the table says of a question and a passage stays as it is; where people disagree, the majority
counts. A judgement is about a text: it follows the text to another id, and is left out if the text
is gone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunerank.data.passages import SPLITS
from tunerank.data.preparation.cleaning import grade
from tunerank.data.preparation.prepare import Prepared
from tunerank.data.questions import grades, relevant_passages
from tunerank.params.data import Prepare


@dataclass(frozen=True)
class Pair:
    """What people say of a passage for a question; `row` is one of their rows, for messages."""

    question: str
    passage: str
    right: bool
    row: str


def judged_pairs(rows: Iterable[Mapping], prepared: Prepared) -> tuple[list[Pair], list[str]]:
    """Return what the majority says of each question and passage, and lines on rows left out.

    Args:
        rows: {who, question, uuid, label, doc, place}; of a person's rows on a pair the last one
            counts.
    """
    texts = {passage["id"]: passage["text"] for passage in prepared.passages}
    by_text = {text: key for key, text in reversed(texts.items())}
    votes: dict[tuple[str, str], dict[str, tuple[bool, str]]] = {}
    lines = []
    for row in rows:
        where = row["place"]
        passage = prepared.merged.get(row["uuid"], row["uuid"])
        if row["doc"] and texts.get(passage) != row["doc"]:
            passage = by_text.get(row["doc"], "")
        if passage not in texts or not row["question"]:
            reason = "the table has no such passage now" if row["question"] else "no question"
            lines.append(f"left out {where}: {reason}")
            continue
        right = grade(row["label"], where) > 0
        voters = votes.setdefault((row["question"], passage), {})
        voters.pop(row["who"], None)
        voters[row["who"]] = right, where
    pairs = []
    for (question, passage), voters in votes.items():
        count = Counter(right for right, _ in voters.values())
        *_, (_, where) = voters.values()
        if count[True] == count[False]:
            lines.append(f"left out {where}: as many people say right as say wrong")
        else:
            pairs.append(Pair(question, passage, count[True] > count[False], where))
    return pairs, lines


def new_pairs(pairs: Iterable[Pair], prepared: Prepared) -> tuple[list[Pair], list[str]]:
    """Return the pairs of which the table says nothing, and lines on the others."""
    known: dict[str, dict[str, int]] = {
        question["question"]: dict.fromkeys(question["negatives"], 0) | grades(question)
        for split in SPLITS
        for question in prepared.questions[split]
    }
    kept, lines, agreed = [], [], 0
    for pair in pairs:
        said = known.get(pair.question, {}).get(pair.passage)
        if said is None:
            kept.append(pair)
        elif (said > 0) == pair.right:
            agreed += 1
        else:
            word = "right" if said else "wrong"
            lines.append(f"left out {pair.row}: the table calls this passage {word}; correct it")
    if agreed:
        lines.append(f"pairs that the table has already: {agreed}")
    return kept, lines


def new_rows(
    pairs: Sequence[Pair],
    prepared: Prepared,
    params: Prepare,
    named: set[str],
    split: str | None,
    with_texts: bool,
) -> list[dict[str, str]]:
    """Return a row of the questions' table for each pair, under our columns' names.

    Args:
        named: the splits that the table names; split: as `merge_feedback`.
        with_texts: whether the rows need the passages' texts, because there is no corpus.
    """
    questions = {q["question"]: q for name in SPLITS for q in prepared.questions[name]}
    texts = {passage["id"]: passage["text"] for passage in prepared.passages}
    asked = {name: relevant_passages(prepared.questions[name]) for name in SPLITS}
    held_out = {name: asked[name] - asked["train"] for name in ("test", "valid") if name in named}
    right: dict[str, set[str]] = {}
    for pair in pairs:
        if pair.right:
            right.setdefault(pair.question, set()).add(pair.passage)
    rows = []
    for pair in pairs:
        row = {"question": pair.question, "uuid": pair.passage, "label": str(int(pair.right))}
        known, answers = questions.get(pair.question), right.get(pair.question, set())
        if named:
            homes = (name for name, passages in held_out.items() if passages & answers)
            # A question of the table has its split from its other rows.
            row["dataset"] = "" if known or not answers else split or next(homes, "train")
        if params.qa_types:
            row["qa_type"] = known["qa_type"] if known else params.qa_types[0]
        if with_texts:
            row["doc"] = texts[pair.passage]
        rows.append(row)
    return rows
