"""What a person should look at after an evaluation: documents that go badly, and labels that may be wrong."""

from collections.abc import Mapping, Sequence

SUSPECT = ("id", "question", "passage", "rival", "base_margin", "reranker_margin")


def by_document(rows: Sequence[dict], systems: Sequence[str], documents: Mapping[str, str]) -> list[dict]:
    """hit@1 of each system by the document that a question's passage is of.

    Args:
        rows: one a question, as `evaluate_systems` gives them.
        documents: passage -> its document.

    Returns:
        {document, questions, system: share of them answered by its first passage}, in the documents' order of names.
    """
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(documents[row["passage"]], []).append(row)
    return [
        {"document": document, "questions": len(group)}
        | {name: round(sum(row[name] == 1 for row in group) / len(group), 6) for name in systems}
        for document, group in sorted(groups.items())
    ]


def suspects(
    questions: Sequence[dict], base: Mapping[str, Mapping[str, float]], tuned: Mapping[str, Mapping[str, float]], margin: float
) -> list[dict]:
    """Questions for which both models prefer one and the same other passage to the question's own, and clearly.

    The label may be wrong, both passages may answer, or the shown window may miss the answer: to be read, not dropped. A
    base with an untrained head scores all passages much alike and so confirms little.

    Args:
        base, tuned: question id -> passage -> raw logit; a question whose own passage has none cannot be judged.
        margin: what the rival's logit must exceed the own passage's by, at least, under both models.

    Returns:
        SUSPECT's columns, one row a question with its strongest rival; the larger the smaller of its margins, the earlier.
    """
    found = []
    for q in questions:
        before, after = base[q["id"]], tuned[q["id"]]
        if q["passage"] not in after:
            continue
        margins = {rival: tuple(scores[rival] - scores[q["passage"]] for scores in (before, after)) for rival in after}
        rival = max(margins, key=lambda name: min(margins[name]))
        if min(margins[rival]) >= margin:
            found.append((q["id"], q["question"], q["passage"], rival, *(round(value, 6) for value in margins[rival])))
    return [dict(zip(SUSPECT, row)) for row in sorted(found, key=lambda row: -min(row[4:]))]
