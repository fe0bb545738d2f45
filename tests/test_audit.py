"""Test the label audit where questions have several relevant passages, or no candidates."""

import pytest
from conftest import ROOT

from tunerank.core.errors import InputError
from tunerank.core.files import write_jsonl
from tunerank.data.passages import Passage
from tunerank.params.load import load
from tunerank.reranking.scores import (
    candidate_task,
    prefers_another,
    read_candidates,
    score_labels,
)

PARAMS = load(ROOT / "tests/params.yaml")
CORPUS = {name: Passage("", "一二三四五六七八九十") for name in "abcdefgh"}


class Lengths:
    """A stand-in for a cross-encoder: a longer text has a higher score."""

    def score(self, pairs, what):
        return [float(len(text)) for _, text in pairs]


def question(key: str, *relevant: str, negatives: tuple[str, ...] = ()) -> dict:
    graded = [{"passage": passage, "grade": 1} for passage in relevant]
    return {"id": key, "question": "?", "relevant": graded, "negatives": list(negatives)}


def test_all_relevant_passages_are_scored_and_one_of_them_must_lead():
    """Candidate i has views of i and i + 1 characters; h is only judged, and not audited."""
    found = [
        {"passage": name, "dense": rank, "bm25": None, "views": [(0, rank), (0, rank + 1)]}
        for rank, name in enumerate("abcdef", 1)
    ]
    found.append({"passage": "h", "dense": None, "bm25": None, "views": [(0, 9)]})
    questions = [
        question("q1", "a", "f", negatives=("h",)),  # f leads with one view
        question("q2", "b", "d"),  # e leads before d's second view, and not after it
        question("q3", "a", "b"),
    ]
    candidates = dict.fromkeys(("q1", "q2", "q3"), found)
    scores = score_labels(Lengths(), questions, candidates, CORPUS, PARAMS.retrieve, "labels")
    assert scores == {
        "q1": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6},
        "q2": {"a": 1, "b": 3, "c": 3, "d": 5, "e": 5},
        "q3": {"a": 2, "b": 3, "c": 3, "d": 4, "e": 5},
    }
    assert [prefers_another(row, scores) for row in questions] == [False, False, True]


@pytest.mark.parametrize(
    "found, expected",
    [
        ({"a": 1.0, "b": 3.0, "c": 2.0}, False),
        ({"a": 1.0, "b": 1.5, "c": 2.0}, True),
        ({"a": 1.0, "b": 3.0, "c": 3.0}, False),
        ({"b": 1.0, "c": 2.0}, True),
        ({"c": 2.0}, False),
        ({}, False),
    ],
)
def test_another_passage_is_preferred_only_above_every_relevant_one(found, expected):
    assert prefers_another(question("q", "a", "b"), {"q": found}) is expected


def test_a_question_without_candidates_has_no_scores():
    own = {"passage": "a", "run": None, "views": [(0, 3)]}
    retrieve = PARAMS.retrieve.model_copy(update={"run": "elastic.trec"})
    params = PARAMS.model_copy(update={"retrieve": retrieve})
    questions, candidates = [question("q", "a"), question("r", "b")], {"q": [own], "r": []}
    task = candidate_task(questions, candidates, CORPUS, params)
    assert task.score(Lengths(), "all") == dict.fromkeys(("scores", "whole"), {"q": {}, "r": {}})
    scores = score_labels(Lengths(), questions, candidates, CORPUS, retrieve, "labels")
    assert scores == {"q": {"a": 3.0}, "r": {}}
    assert not any(prefers_another(row, scores) for row in questions)


def test_candidates_are_read_for_the_questions_of_each_split(tmp_path):
    for split, keys in {"test": "ab", "train": "cde"}.items():
        write_jsonl(tmp_path / f"{split}.jsonl", ({"id": k, "candidates": [k]} for k in keys))
    asked = {"test": [question("b", "p"), question("a", "p")], "train": [question("d", "p")]}
    assert read_candidates(tmp_path, asked) == [{"a": ["a"], "b": ["b"]}, {"d": ["d"]}]
    with pytest.raises(InputError, match=r"train.jsonl: no candidates of 'b'"):
        read_candidates(tmp_path, {"train": asked["test"]})
