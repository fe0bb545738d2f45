"""Write rankings and judgements as TREC files, which trec_eval, ir_measures and ranx read.

A line has fields between blanks, so an id with white space is percent-encoded. Control characters
and a byte order mark are too: readers split or drop them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from tunerank.core.files import replacing, write_text
from tunerank.data.questions import grades

ENCODED = re.compile("[\\s%\0-\x1f\x7f-\x9f\ufeff]")

JUDGEMENTS = "qrels.trec"
"""The file of judgements, beside SYSTEM.trec."""


def encode_id(name: str) -> str:
    """Return an id as one field of a TREC file.

    >>> encode_id("手册 1"), encode_id("100%"), encode_id("a-1")
    ('手册%201', '100%25', 'a-1')
    """
    return ENCODED.sub(lambda found: quote(found[0], safe=""), name)


def decode_id(field: str) -> str:
    """Return the id that `encode_id` was given.

    >>> decode_id("手册%201"), decode_id("100%25"), decode_id("a-1")
    ('手册 1', '100%', 'a-1')
    """
    return unquote(field)


def run_lines(system: str, ranking: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines `question Q0 passage rank score system` of one system, best first.

    trec_eval orders by score, and equal scores by id, so that the score is 1 / rank: ranks stay
    apart in its 32 bits.
    """
    return [
        f"{encode_id(question)} Q0 {encode_id(passage)} {rank} {1 / rank:.9g} {system}"
        for question, passages in ranking.items()
        for rank, passage in enumerate(passages, 1)
    ]


def qrel_lines(questions: Sequence[dict]) -> list[str]:
    """Return the lines `question 0 passage grade`, grade 0 for what somebody judged wrong."""
    judged = (
        (question["id"], dict.fromkeys(question["negatives"], 0) | grades(question))
        for question in questions
    )
    return [
        f"{encode_id(question)} 0 {encode_id(passage)} {grade}"
        for question, of_question in judged
        for passage, grade in sorted(of_question.items(), key=lambda pair: -pair[1])
    ]


def write_runs(
    folder: Path,
    questions: Sequence[dict],
    rankings: Mapping[str, Mapping[str, Sequence[str]]],
) -> None:
    """Write SYSTEM.trec for each system, and JUDGEMENTS, in place of the folder's old content.

    Args:
        rankings: system -> question id -> passages, best first.
    """
    contents = {f"{system}.trec": run_lines(system, found) for system, found in rankings.items()}
    with replacing(folder) as partial:
        partial.mkdir()
        for name, lines in (contents | {JUDGEMENTS: qrel_lines(questions)}).items():
            write_text(partial / name, "".join(f"{line}\n" for line in lines))
