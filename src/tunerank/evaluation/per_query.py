"""The rows of metrics/per_query.csv and metrics/first.csv, and the groups of questions."""

from collections.abc import Mapping, Sequence

from tunerank.evaluation.measures import gold_rank

Rankings = Mapping[str, Mapping[str, Sequence[str]]]
"""System -> question id -> passages, best first."""


def rank_rows(questions: Sequence[dict], rankings: Rankings, trained: set[str]) -> list[dict]:
    """Return the rows of metrics/per_query.csv, one for each relevant passage of each question.

    A row is {id, passage, qa_type, seen} and, by system, the rank of the passage, None if it was
    not found. `grade` follows `passage` if any grade is not 1. A question is seen if one of its
    relevant passages is in `trained`.
    """
    graded = any(item["grade"] != 1 for question in questions for item in question["relevant"])
    rows = []
    for question in questions:
        key, relevant = question["id"], question["relevant"]
        seen = any(item["passage"] in trained for item in relevant)
        for item in relevant:
            passage = item["passage"]
            about = {"id": key, "passage": passage} | ({"grade": item["grade"]} if graded else {})
            ranks = {name: gold_rank(found[key], passage) for name, found in rankings.items()}
            rows.append(about | {"qa_type": question["qa_type"], "seen": seen} | ranks)
    return rows


def first_row(question: dict, rankings: Rankings) -> dict:
    """Return a row of metrics/first.csv: the first passage by system, None without any.

    `passage` and `evidence` are of the question's first relevant passage.
    """
    key, own = question["id"], question["relevant"][0]
    return {
        "id": key,
        "question": question["question"],
        "evidence": own["context"] or own["answer"],
        "passage": own["passage"],
        **{name: next(iter(found[key]), None) for name, found in rankings.items()},
    }


def question_groups(rows: Sequence[dict]) -> dict[str, list[str]]:
    """Return group -> question ids: all, seen, unseen, and the last two by kind of question.

    Args:
        rows: of `rank_rows`; a question may have several.
    """
    groups: dict[str, dict[str, None]] = {"all": {row["id"]: None for row in rows}}
    for row in rows:
        seen = "seen" if row["seen"] else "unseen"
        for name in [seen, f"{row['qa_type']}_{seen}"] if row["qa_type"] else [seen]:
            groups.setdefault(name, {})[row["id"]] = None
    return {name: list(ids) for name, ids in groups.items()}


def hits_by_document(
    rows: Sequence[dict], systems: Sequence[str], documents: Mapping[str, str]
) -> list[dict]:
    """Return the hit@1 of each system on the questions of each document, by document name.

    A question counts for each document that has a relevant passage of it, as a hit if any relevant
    passage is first.

    Args:
        rows: of `rank_rows`.
        documents: passage -> its document.

    Returns:
        {document, questions, system: share of them with a relevant passage first}.
    """
    asked: dict[str, list[dict]] = {}
    for row in rows:
        asked.setdefault(row["id"], []).append(row)
    groups: dict[str, list[dict]] = {}
    for found in asked.values():
        hits = {name: any(row[name] == 1 for row in found) for name in systems}
        for document in {documents[row["passage"]] for row in found}:
            groups.setdefault(document, []).append(hits)
    return [
        {"document": document, "questions": len(group)}
        | {name: round(sum(hits[name] for hits in group) / len(group), 6) for name in systems}
        for document, group in sorted(groups.items())
    ]
