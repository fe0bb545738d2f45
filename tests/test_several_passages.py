"""Questions with several right passages, grades, negatives that a person chose, and ids."""

import hashlib

import pandas as pd
import pytest

from tunerank.core.errors import InputError
from tunerank.data.preparation.prepare import Prepared, prepare, summarise
from tunerank.data.questions import grades, relevant_passages
from tunerank.params.data import Prepare

SPLITS = ("train", "valid", "test")


def table(text: str, labels=None) -> pd.DataFrame:
    """Return a table as the readers do; the first line has the columns, rows count from 2."""
    header, *rows = [line.split(",") for line in text.strip().splitlines()]
    labels = range(2, len(rows) + 2) if labels is None else labels
    return pd.DataFrame(rows, columns=header, index=labels, dtype=object).fillna("")


def run(qa: str, corpus: str | None = None, labels=None, split_files=False, **changes) -> Prepared:
    values = {"raw": "x", "columns": {}, "qa_types": [], "unicode": "NFC", "split_seed": 42}
    values |= {"valid_fraction": 0.0, "test_fraction": 0.25}
    return prepare(
        table(qa, labels),
        table(corpus) if corpus else None,
        Prepare(**values | changes),
        "qa.csv" if labels is None else "raw/x",
        "corpus.csv",
        split_files,
    )


def refusal(*tables, **changes) -> str:
    with pytest.raises(InputError) as error:
        run(*tables, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def judged(prepared: Prepared) -> dict[str, tuple[str, dict[str, int], list[str]]]:
    """Return question -> its split, grades and negatives."""
    return {
        question["question"]: (split, grades(question), question["negatives"])
        for split in SPLITS
        for question in prepared.questions[split]
    }


def reasons(prepared: Prepared) -> list[tuple[int | str, str]]:
    return [(drop["row"], drop["reason"]) for drop in prepared.dropped]


def passages(count: int) -> str:
    return "uuid,doc\n" + "".join(f"p{n:02d},正文{n}\n" for n in range(count))


# several right passages


def test_each_question_keeps_both_of_its_right_passages():
    corpus = "uuid,doc\n" + "".join(f"p{n:02d},手册{n}\np{n:02d}b,商店{n}\n" for n in range(4))
    qa = "question,uuid,dataset\n" + "".join(
        f"问题{n}？,p{n:02d},{split}\n问题{n}？,p{n:02d}b,{split}\n"
        for n, split in enumerate(("train", "train", "valid", "test"))
    )
    prepared = run(qa, corpus)
    assert judged(prepared) == {
        "问题0？": ("train", {"p00": 1, "p00b": 1}, []),
        "问题1？": ("train", {"p01": 1, "p01b": 1}, []),
        "问题2？": ("valid", {"p02": 1, "p02b": 1}, []),
        "问题3？": ("test", {"p03": 1, "p03b": 1}, []),
    }
    assert prepared.dropped == [] and prepared.notes == []
    assert summarise(prepared) == {
        "passages": 8,
        "passages_merged": 0,
        "passages_train": 4,
        "passages_held_out": 4,
        "questions": {"train": 2, "valid": 1, "test": 1},
        "relevant": {"train": 4, "valid": 2, "test": 2},
        "negatives": {"train": 0, "valid": 0, "test": 0},
        "qa_type": {"train": {"none": 2}, "valid": {"none": 1}, "test": {"none": 1}},
        "test_seen": 0,
        "test_unseen": 1,
        "dropped": {},
    }


def test_a_passage_keeps_its_own_evidence_and_answer():
    qa = (
        "question,uuid,doc,context,answer,qa_type,dataset\n"
        "甲？,a,一二三,二,2,x,train\n乙？,b,四,,,,test\n甲？,c,五六,六,6,y,train\n"
    )
    (question,) = run(qa).questions["train"]
    assert question == {
        "id": "q" + hashlib.sha256("甲？".encode()).hexdigest()[:12],
        "question": "甲？",
        "relevant": [
            {"passage": "a", "grade": 1, "context": "二", "answer": "2"},
            {"passage": "c", "grade": 1, "context": "六", "answer": "6"},
        ],
        "negatives": [],
        "qa_type": "x",
        "row": 2,
    }


def test_higher_grades_come_first_and_then_the_order_of_the_table():
    qa = (
        "question,uuid,doc,label,dataset\n"
        "甲？,d,四,1,train\n甲？,c,三,2,train\n甲？,e,五,0,train\n甲？,b,二,1,train\n"
        "甲？,a,一,2,train\n甲？,f,六,0,train\n乙？,a,一,1,test\n"
    )
    prepared = run(qa)
    _, found, negatives = judged(prepared)["甲？"]
    assert list(found.items()) == [("c", 2), ("a", 2), ("d", 1), ("b", 1)]
    assert negatives == ["e", "f"] and prepared.dropped == []


def test_an_exact_repeat_is_dropped_and_leaves_its_higher_grade():
    qa = (
        "question,uuid,doc,context,label,dataset\n"
        "甲？,a,一二,一,1,train\n甲？,a,一二,二,3,train\n甲？,b,三,,2,train\n"
        "甲？,c,四,,0,train\n甲？,c,四,,0,train\n乙？,a,一二,,1,test\n"
    )
    prepared = run(qa)
    assert reasons(prepared) == [(3, "repeated question (row 2)"), (6, "repeated question (row 5)")]
    (question,) = prepared.questions["train"]
    assert [(item["passage"], item["grade"], item["context"]) for item in question["relevant"]] == [
        ("a", 3, "一"),
        ("b", 2, ""),
    ]
    assert question["negatives"] == ["c"]


def test_passages_of_equal_text_become_one_in_relevant_and_negatives():
    corpus = "uuid,doc,also\nb,一,x\na,一,x\nc,二,x\ne,三,x\nd,三,x\nf,四,x\n"
    qa = (
        "question,uuid,label,dataset\n"
        "甲？,b,1,train\n甲？,a,2,train\n甲？,e,0,train\n甲？,d,0,train\n"
        "乙？,c,1,test\n乙？,e,1,test\n乙？,d,0,test\n"
    )
    prepared = run(qa, corpus)
    assert judged(prepared) == {
        "甲？": ("train", {"a": 2}, ["d"]),
        "乙？": ("test", {"c": 1, "d": 1}, []),
    }
    assert reasons(prepared) == [
        (3, "repeated question (row 2)"),
        (5, "repeated question (row 4)"),
        (8, "label 0, but another row calls the passage right (row 7)"),
    ]
    assert prepared.passages == [
        {"id": "a", "text": "一", "also": ["b"]},
        {"id": "c", "text": "二"},
        {"id": "d", "text": "三", "also": ["e"]},
        {"id": "f", "text": "四"},
    ]


# negatives


def test_a_negative_with_the_text_of_a_right_passage_under_another_title_is_dropped():
    corpus = "uuid,doc,title\na,一,甲\nb,一,乙\nc,二,乙\n"
    qa = (
        "question,uuid,label,dataset\n"
        "甲？,b,0,train\n甲？,a,1,train\n甲？,c,0,train\n乙？,c,1,test\n乙？,a,0,test\n乙？,b,0,test\n"
    )
    prepared = run(qa, corpus)
    assert judged(prepared) == {
        "甲？": ("train", {"a": 1}, ["c"]),
        "乙？": ("test", {"c": 1}, ["a", "b"]),
    }
    assert reasons(prepared) == [(2, "label 0, but a right passage has the same text (row 3)")]


def test_a_passage_that_is_right_and_wrong_is_right_and_counted():
    qa = (
        "question,uuid,doc,label,dataset\n"
        "甲？,a,一,0,train\n甲？,a,一,1,train\n乙？,b,二,1,test\n乙？,b,二,0,train\n"
    )
    prepared = run(qa)
    assert judged(prepared) == {"甲？": ("train", {"a": 1}, []), "乙？": ("test", {"b": 1}, [])}
    reason = "label 0, but another row calls the passage right"
    assert reasons(prepared) == [(2, f"{reason} (row 3)"), (5, f"{reason} (row 4)")]
    assert summarise(prepared)["dropped"] == {reason: 2}


def test_a_question_that_nothing_answers_is_dropped_with_all_its_rows():
    qa = (
        "question,uuid,doc,label,dataset\n"
        "甲？,a,一,0,train\n乙？,b,二,1,train\n甲？,b,二,0,train\n丙？,c,三,1,test\n"
    )
    prepared = run(qa)
    assert judged(prepared) == {"乙？": ("train", {"b": 1}, []), "丙？": ("test", {"c": 1}, [])}
    assert reasons(prepared) == [(2, "no relevant passage"), (4, "no relevant passage")]
    assert [passage["id"] for passage in prepared.passages] == ["a", "b", "c"]


def test_a_negative_needs_no_text_of_its_own_if_another_row_has_it():
    qa = (
        "question,uuid,doc,context,answer,label,dataset\n"
        "甲？,b,,,,0,train\n甲？,a,,一,,1,train\n甲？,x,,,,0,train\n甲？,y,,,九,0,train\n"
        "乙？,b,,二,,1,test\n乙？,a,,错,,0,test\n乙？,z,,,,0,test\n乙？,z,全文,,,0,test\n"
    )
    prepared = run(qa)
    assert {row["id"]: row["text"] for row in prepared.passages} == {
        "b": "二",
        "a": "一",
        "y": "九",
        "z": "全文",
    }
    assert judged(prepared) == {
        "甲？": ("train", {"a": 1}, ["b", "y"]),
        "乙？": ("test", {"b": 1}, ["a", "z"]),
    }
    assert reasons(prepared) == [
        (4, "label 0 of a passage without text"),
        (9, "repeated question (row 8)"),
    ]


def test_a_negative_of_a_text_without_an_id_is_a_passage():
    qa = "question,answer,label,dataset\n甲？,一,1,train\n甲？,二,0,train\n乙？,三,1,test\n"
    prepared = run(qa)
    assert [row["text"] for row in prepared.passages] == ["一", "二", "三"]
    assert judged(prepared)["甲？"] == (
        "train",
        {"51a75f4634dfa859": 1},
        ["084b42f6e95e4e65"],
    )


def test_a_negative_that_contradicts_the_text_of_its_id_is_refused():
    qa = "question,uuid,doc,label,dataset\n甲？,a,一,1,train\n乙？,b,二,1,test\n乙？,a,三,0,test\n"
    assert refusal(qa) == (
        "qa.csv, row 4: uuid 'a' already has another text; give each passage an id of its own"
    )


# splits


def test_the_strongest_split_has_the_question_with_all_its_passages():
    qa = (
        "question,uuid,dataset,label\n"
        "甲？,p00,train,1\n甲？,p01,test,1\n甲？,p02,valid,0\n乙？,p03,train,1\n乙？,p04,valid,1\n"
        "丙？,p05,train,1\n丙？,p06,train,1\n丁？,p07,train,1\n丁？,p08,valid,0\n"
    )
    prepared = run(qa, passages(9))
    assert judged(prepared) == {
        "甲？": ("test", {"p00": 1, "p01": 1}, ["p02"]),
        "乙？": ("valid", {"p03": 1, "p04": 1}, []),
        "丙？": ("train", {"p05": 1, "p06": 1}, []),
        "丁？": ("valid", {"p07": 1}, ["p08"]),
    }
    assert prepared.dropped == []
    assert prepared.notes == [
        "qa.csv: rows that name another split than their question has: 4; a question in several "
        "splits is in test before valid before train"
    ]
    rows = {q["question"]: q["row"] for s in SPLITS for q in prepared.questions[s]}
    assert rows == {"甲？": 3, "乙？": 6, "丙？": 7, "丁？": 9}


def test_passages_stay_in_the_order_of_the_table_whatever_their_rows_name():
    qa = (
        "question,uuid,dataset,label\n"
        "甲？,p03,train,0\n甲？,p00,train,1\n甲？,p02,test,0\n甲？,p01,test,1\n乙？,p04,train,1\n"
    )
    _, found, negatives = judged(run(qa, passages(5)))["甲？"]
    assert (list(found), negatives) == (["p00", "p01"], ["p03", "p02"])


def test_a_row_without_a_split_follows_its_question_and_a_question_needs_one():
    qa = "question,uuid,dataset\n甲？,p00,\n甲？,p01,train\n乙？,p02,test\n"
    prepared = run(qa, passages(3))
    assert judged(prepared)["甲？"] == ("train", {"p00": 1, "p01": 1}, []) and not prepared.notes
    assert refusal(qa + "丙？,p00,\n丙？,p01,\n", passages(3)).startswith(
        "qa.csv, row 5: dataset '' is not one of train, valid, test; "
    )


def test_an_unknown_split_of_a_second_passage_is_refused():
    qa = "question,uuid,dataset\n甲？,p00,train\n乙？,p01,test\n甲？,p02,holdout\n"
    assert refusal(qa, passages(3)).startswith("qa.csv, row 4: dataset 'holdout' is not one of ")


def number(key: str, seed: int = 42) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64


def components(pairs: list[tuple[str, set[str]]]) -> dict[str, frozenset[str]]:
    """Return question -> the passages that it is linked to, by merging sets until none meet."""
    sets: list[set[str]] = []
    for _, answers in pairs:
        meeting = [found for found in sets if found & answers]
        sets = [found for found in sets if not found & answers]
        sets.append(set().union(answers, *meeting))
    return {
        question: frozenset(next(found for found in sets if answers <= found))
        for question, answers in pairs
    }


def linked_table(groups: int, size: int) -> tuple[str, list[tuple[str, set[str]]]]:
    """Return a table in which `size` questions in a row share passages, and its questions."""
    pairs = []
    for group in range(groups):
        for step in range(size):
            first = group * (size + 1) + step
            # The passages of a question do not come in the order of their ids.
            pairs.append((f"问{group}-{step}？", {f"p{first + 1:02d}", f"p{first:02d}"}))
    qa = "question,uuid\n" + "".join(
        f"{question},{key}\n" for question, answers in pairs for key in sorted(answers)[::-1]
    )
    return qa, pairs


def test_questions_that_share_passages_are_drawn_together_by_their_smallest_passage():
    qa, pairs = linked_table(12, 3)
    groups = components(pairs)
    for seed in range(20):
        prepared = run(qa, passages(48), split_seed=seed, valid_fraction=0.3)
        split = {question: place for question, (place, _, _) in judged(prepared).items()}
        keys = {min(group) for group in groups.values()}
        assert len(keys) == 12
        test = {key for key in keys if number(key, seed) >= 0.75} or {
            max(keys, key=lambda key: number(key, seed))
        }
        rest = keys - test
        valid = {key for key in rest if number(f"v{key}", seed) < 0.3} or {
            min(rest, key=lambda key: number(f"v{key}", seed))
        }
        for question, group in groups.items():
            key = min(group)
            wanted = "test" if key in test else "valid" if key in valid else "train"
            assert split[question] == wanted
        shown = [relevant_passages(prepared.questions[name]) for name in SPLITS]
        assert sum(map(len, shown)) == 48 and len(set().union(*shown)) == 48
        assert prepared.notes == [] and summarise(prepared)["test_seen"] == 0


def test_negatives_link_no_questions():
    qa = "question,uuid,label\n" + "".join(
        f"问{n}？,p{n:02d},1\n问{n}？,p{(n + 1) % 20:02d},0\n" for n in range(20)
    )
    test = {f"p{n:02d}" for n in range(20) if number(f"p{n:02d}") >= 0.75}
    assert test and relevant_passages(run(qa, passages(20)).questions["test"]) == test


def test_questions_are_drawn_alone_where_common_passages_link_most_of_them():
    qa, pairs = linked_table(1, 30)
    qa += "独一？,p40\n独二？,p41\n"
    questions = [question for question, _ in pairs] + ["独一？", "独二？"]
    prepared = run(qa, passages(42), valid_fraction=0.2)
    test = {question for question in questions if number(question) >= 0.75}
    valid = {q for q in questions if q not in test and number(f"v{q}") < 0.2}
    split = {question: place for question, (place, _, _) in judged(prepared).items()}
    assert {q for q in questions if split[q] == "test"} == test != set()
    assert {q for q in questions if split[q] == "valid"} == valid != set()
    assert prepared.notes == [
        "qa.csv: passages that answer common questions link 30 of 32 questions, so that test "
        "questions are drawn by question, not by passage: a test question's passages may be "
        "trained on, which is reported as seen"
    ]
    assert summarise(prepared)["test_seen"] > 0


def test_a_passage_with_most_questions_is_still_drawn_as_one():
    """A passage that has most of the questions links no other one."""
    qa = "question,uuid\n" + "".join(f"问{n}？,p00\n" for n in range(9)) + "另？,p01\n又？,p02\n"
    prepared = run(qa, passages(3))
    splits = {place for question, (place, _, _) in judged(prepared).items() if question[0] == "问"}
    assert len(splits) == 1 and prepared.notes == []


def test_exactly_half_of_the_questions_are_drawn_as_one():
    qa = "question,uuid\n甲？,p00\n甲？,p01\n乙？,p01\n丙？,p02\n丁？,p03\n"
    prepared = run(qa, passages(4), test_fraction=0.5)
    split = {question: place for question, (place, _, _) in judged(prepared).items()}
    assert split["甲？"] == split["乙？"] and prepared.notes == []
    assert (
        run(qa + "戊？,p00\n", passages(4))
        .notes[0]
        .startswith("qa.csv: passages that answer common questions link 3 of 5 questions")
    )


def test_validation_passages_are_those_of_no_test_and_no_training_question():
    """Questions 0 to 9 share a passage with a test question, 10 to 19 with these, others none."""
    qa = "question,uuid,dataset\n" + "".join(
        f"测{n}？,p{n:02d},test\n近{n}？,p{n:02d},train\n近{n}？,p{n + 10:02d},train\n"
        f"邻{n}？,p{n + 10:02d},train\n"
        for n in range(10)
    )
    qa += "".join(f"远{n}？,p{n + 20:02d},train\n远{n}？,p{n + 60:02d},train\n" for n in range(40))
    prepared = run(qa, passages(100), valid_fraction=0.4)
    valid = [question["question"] for question in prepared.questions["valid"]]
    wanted = {f"远{n}？" for n in range(40) if number(f"vp{n + 20:02d}") < 0.4}
    assert set(valid) == wanted and len(wanted) > 5
    others = prepared.questions["train"] + prepared.questions["test"]
    assert not relevant_passages(prepared.questions["valid"]) & relevant_passages(others)


def test_validation_is_drawn_by_question_where_the_training_questions_hang_together():
    qa, pairs = linked_table(1, 30)
    qa = qa.replace("\n", ",train\n").replace("uuid,train", "uuid,dataset") + "测？,p40,test\n"
    prepared = run(qa, passages(42), valid_fraction=0.2)
    wanted = {question for question, _ in pairs if number(f"v{question}") < 0.2}
    assert {question["question"] for question in prepared.questions["valid"]} == wanted != set()


# ids


def test_a_question_has_the_id_that_the_data_gives_it():
    qa = (
        "query_id,question,uuid,dataset\n"
        "1.0,甲？,p00,train\n,甲？,p01,train\n007,乙？,p02,test\n,丙？,p03,train\n"
    )
    prepared = run(qa, passages(4))
    ids = {q["question"]: q["id"] for split in SPLITS for q in prepared.questions[split]}
    made = "q" + hashlib.sha256("丙？".encode()).hexdigest()[:12]
    assert ids == {"甲？": "1.0", "乙？": "007", "丙？": made} and prepared.notes == []


def test_a_question_with_two_ids_keeps_the_first_and_says_so():
    qa = (
        "query_id,question,uuid,dataset\n"
        "a,甲？,p00,train\nb,甲？,p01,train\nc,乙？,p02,train\nd,乙？,p03,test\nd,乙？,p01,test\n"
    )
    prepared = run(qa, passages(4))
    ids = {q["question"]: q["id"] for split in SPLITS for q in prepared.questions[split]}
    assert ids == {"甲？": "a", "乙？": "d"}  # the test rows come before the training row
    assert prepared.notes[-1] == (
        "qa.csv: questions with several query_ids: 2; the first is kept, for example 'd', not 'c'"
    )


@pytest.mark.parametrize("key", ["7", "q6f420b074f6f"])
def test_two_questions_of_one_id_are_refused(key):
    """The second id is the one that `问题甲` has from its text."""
    first = key if key == "7" else ""
    qa = f"query_id,question,uuid,dataset\n{first},问题甲,p00,train\n{key},问题乙,p01,test\n"
    assert refusal(qa, passages(2)) == (
        f"qa.csv, row 3: the question's id '{key}' is that of row 2 too; give each question a "
        "query_id of its own, or rename that column if it does not name questions"
    )
    assert run(qa.replace("query_id", "nr"), passages(2)).notes == [
        "qa.csv: columns not used: 'nr'"
    ]


# rows of several files


def test_rows_of_several_files_are_named_and_stay_in_their_order():
    qa = (
        "question,uuid,doc,label,dataset\n"
        "甲？,a,一,1,train\n甲？,b,二,1,train\n,c,三,1,train\n乙？,c,三,1,test\n乙？,c,三,1,test\n"
    )
    labels = ["train.tsv:9", "train.tsv:10", "train.tsv:11", "test.tsv:1", "test.tsv:2"]
    prepared = run(qa, labels=labels)
    assert [prepared.questions[split][0]["row"] for split in ("train", "test")] == [
        "train.tsv:9",
        "test.tsv:1",
    ]
    assert list(judged(prepared)["甲？"][1]) == ["a", "b"]
    assert reasons(prepared) == [
        ("train.tsv:11", "empty question"),
        ("test.tsv:2", "repeated question (test.tsv, line 1)"),
    ]
    assert summarise(prepared)["dropped"] == {"empty question": 1, "repeated question": 1}
    wrong = qa.replace("乙？,c,三,1", "乙？,c,三,x")
    found = refusal(wrong, labels=labels)
    assert found.startswith("raw/x/test.tsv, line 1: label 'x' is neither ")


def test_two_questions_of_one_id_in_two_files_are_named_alike():
    qa = "query_id,question,uuid,dataset\n7,甲？,p00,train\n7,乙？,p01,test\n"
    found = refusal(qa, passages(2), labels=["train.csv:2", "test.csv:2"])
    assert found == (
        "raw/x/test.csv, row 2: the question's id '7' is that of train.csv, row 2 too; give each "
        "question a query_id of its own, or rename that column if it does not name questions"
    )


# a split without questions


@pytest.mark.parametrize(
    "qa, changes, remedy",
    [
        (
            "question,uuid,dataset\n甲？,p00,test\n甲？,p01,test\n乙？,p02,test\n",
            {"split_files": True},
            "no train question is left of 3 rows; add a file of train questions, or leave one file "
            "alone and name it train: prepare.test_fraction then draws test questions from it",
        ),
        (
            "question,uuid,dataset\n甲？,p00,train\n乙？,p02,valid\n",
            {"split_files": True},
            "no test question is left of 2 rows; add a file of test questions, or leave one file "
            "alone and name it train: prepare.test_fraction then draws test questions from it",
        ),
        (
            "question,uuid,dataset\n甲？,p00,test\n乙？,p02,test\n",
            {},
            "no train question is left of 2 rows; name some in column 'dataset', or leave that "
            "column out and set prepare.test_fraction",
        ),
        (
            "question,uuid,dataset\n甲？,p00,train\n甲？,p01,test\n乙？,p02,train\n乙？,p02,test\n",
            {},
            "no train question is left of 4 rows; 2 name it, but their questions are in another "
            "split too, and test goes before valid before train; name one split for each question",
        ),
        (
            "question,uuid,label,dataset\n甲？,p00,0,train\n乙？,p02,1,test\n",
            {},
            "no train question is left of 2 rows; name some in column 'dataset', or leave that "
            "column out and set prepare.test_fraction",
        ),
        (
            "question,uuid\n甲？,p00\n甲？,p01\n",
            {},
            "no test question is left of 2 rows; there is one question: add others",
        ),
        (
            "question,uuid,label\n甲？,p00,0\n乙？,p01,0\n",
            {},
            "no train question is left of 2 rows; all were dropped: no relevant passage (2); a "
            "right passage has the label 1 or more, a wrong one 0; correct column 'label'",
        ),
    ],
)
def test_an_empty_split_is_refused_with_what_to_do(qa, changes, remedy):
    assert refusal(qa, passages(3), **changes) == f"qa.csv: {remedy}"
