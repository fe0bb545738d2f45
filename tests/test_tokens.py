"""Test the token ids of samples: they equal those of FlagEmbedding's own dataset for each pair."""

import csv
import random

import pyarrow as pa
import pytest
from conftest import ROOT, table_rows
from FlagEmbedding.abc.finetune.reranker import AbsRerankerDataArguments, AbsRerankerTrainDataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tunerank.core.errors import InputError
from tunerank.core.files import write_jsonl
from tunerank.training import tokens
from tunerank.training.tokens import TokenizedSamples


def flag_embedding(tokenizer, query_max_len: int, passage_max_len: int):
    """Return the method of FlagEmbedding's dataset that makes a pair's ids, without samples."""
    dataset = AbsRerankerTrainDataset.__new__(AbsRerankerTrainDataset)
    dataset.args = AbsRerankerDataArguments(
        train_data=[], query_max_len=query_max_len, passage_max_len=passage_max_len
    )
    dataset.tokenizer = tokenizer
    return dataset.create_one_example


def ours(tokenizer, folder, pairs, query_max_len, passage_max_len):
    """Return the ids that GroupDataset makes, with one sample per pair."""
    from tunerank.training.groups import GroupDataset

    write_jsonl(
        folder / "samples.jsonl",
        ({"query": query, "pos": [passage], "neg": [passage]} for query, passage in pairs),
    )
    args = AbsRerankerDataArguments(
        train_data=[str(folder / "samples.jsonl")],
        train_group_size=2,
        query_max_len=query_max_len,
        passage_max_len=passage_max_len,
    )
    data = GroupDataset(args, tokenizer, 1.0, 1, folder / "tokens")
    found = {row: data[item][0][0] for item, row in enumerate(data.order(0))}
    return [found[row] for row in range(len(pairs))]


def drawn_pairs(count: int) -> list[tuple[str, str]]:
    """Return random pairs of bundled questions and passages.

    Some have a passage in the place of the question, or a question in the place of the passage.
    """
    questions = [row["question"] for row in table_of("qa.csv")]
    passages = [row["doc"] for row in table_of("corpus.csv")]
    rng = random.Random(5)
    return [
        (
            rng.choice(passages if rng.random() < 0.2 else questions),
            rng.choice(questions if rng.random() < 0.2 else passages),
        )
        for _ in range(count)
    ]


def table_of(name: str) -> list[dict]:
    with open(ROOT / "data/raw/yunshan" / name, encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize(
    "query, passage, count, cut", [(64, 448, 1000, 0), (16, 64, 2000, 1602), (40, 12, 500, 401)]
)
def test_ids_equal_those_of_flag_embedding(tmp_path, query, passage, count, cut):
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/bundled")
    pairs = drawn_pairs(count)
    made = ours(tokenizer, tmp_path, pairs, query, passage)
    theirs = flag_embedding(tokenizer, query, passage)
    assert [pair["input_ids"] for pair in made] == [theirs(*pair)["input_ids"] for pair in pairs]
    assert sum(len(pair["input_ids"]) == query + passage for pair in made) == cut


def test_ids_equal_those_of_ranking_if_flag_embedding_loses_a_piece(tmp_path):
    """FlagEmbedding decodes and encodes again. It loses a piece before a leading unknown character.

    Ranking sees that piece.
    """
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/bundled")
    pairs = [
        ("😀 什么", "a  b\n c"),
        ("𠮷野家的牛肉饭?", "标签"),
        ("", "空"),
        (" 前面有空格", "后面 "),
        ("ﬁnance", "ＡＢＣ①"),
    ]
    made = [pair["input_ids"] for pair in ours(tokenizer, tmp_path, pairs, 64, 448)]
    assert made == [tokenizer(*pair)["input_ids"] for pair in pairs]
    theirs = flag_embedding(tokenizer, 64, 448)
    assert [ids == theirs(*pair)["input_ids"] for ids, pair in zip(made, pairs)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_ids_on_disk_are_reused_only_for_the_same_file_limit_and_tokenizer(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def stored(text: str, limit: int, tokenizer=tokenizer) -> tuple[list[int], int]:
        write_jsonl(
            tmp_path / "samples.jsonl", [{"query": text, "pos": ["船"], "neg": ["灯", "船", text]}]
        )
        samples = TokenizedSamples(
            tmp_path / "samples.jsonl", tokenizer, limit, tmp_path / "tokens"
        )
        row = samples.row(0)
        assert row == {
            "query": 0,
            "pos": [1],
            "neg": [2, 1, 0],
            "pos_scores": None,
            "neg_scores": None,
            "pos_weights": None,
        }
        return samples.ids(0), (tmp_path / "tokens" / "key").stat().st_ino

    ids, file = stored("红色的车", 9)
    assert ids == tokenizer("红色的车", add_special_tokens=False)["input_ids"] and len(ids) == 5
    assert stored("红色的车", 9) == (ids, file)
    assert stored("红色的车", 3)[0] == ids[:3]
    assert stored("黑色的车", 3)[0] != ids[:3]
    other = AutoTokenizer.from_pretrained(ROOT / "models/bundled")
    assert (
        stored("黑色的车", 3, other)[0]
        == other("黑色的车", add_special_tokens=False)["input_ids"][:3]
    )


@pytest.mark.parametrize("name", ["texts.arrow", "rows.arrow", "key"])
def test_damaged_ids_on_disk_are_recomputed(tiny_model, tmp_path, name):
    write_jsonl(tmp_path / "samples.jsonl", [{"query": "红色的车", "pos": ["船"], "neg": ["灯"]}])

    def read() -> tuple[list[int], dict]:
        samples = TokenizedSamples(
            tmp_path / "samples.jsonl",
            AutoTokenizer.from_pretrained(tiny_model),
            9,
            tmp_path / "tokens",
        )
        return samples.ids(0), samples.row(0)

    whole, file = read(), tmp_path / "tokens" / name
    content = file.read_bytes()
    middle = len(content) // 2
    for damaged in (
        b"",
        content[:middle],
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        None,
    ):
        file.unlink()  # data that is mapped stays intact
        if damaged is not None:
            file.write_bytes(damaged)
        assert read() == whole and file.read_bytes() == content


SCORED = {
    "query": "车",
    "pos": ["船", "灯"],
    "neg": ["门"],
    "pos_scores": [0.1, 2],
    "neg_scores": [-3.25],
    "pos_weights": [3, 0.5],
}


def tokenised(folder, model, *rows):
    write_jsonl(folder / "samples.jsonl", rows)
    tokenizer = AutoTokenizer.from_pretrained(model)
    return TokenizedSamples(folder / "samples.jsonl", tokenizer, 9, folder / "tokens")


def test_rows_keep_their_scores_and_weights(tiny_model, tmp_path):
    plain = {name: SCORED[name] for name in ("query", "pos", "neg")}
    samples = tokenised(tmp_path, tiny_model, SCORED, plain)
    numbers = {"query": 0, "pos": [1, 2], "neg": [3]}
    scores = {"pos_scores": [0.1, 2.0], "neg_scores": [-3.25], "pos_weights": [3.0, 0.5]}
    assert samples.row(0) == numbers | scores
    assert samples.row(1) == numbers | dict.fromkeys(scores)


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"pos_weights": [1.0]}, "'pos_weights' (1) for 2 texts; write one number for each"),
        ({"pos_weights": []}, "'pos_weights' (0) for 2 texts; write one number for each"),
        ({"pos_weights": [1, 1, 1]}, "'pos_weights' (3) for 2 texts; write one number for each"),
        ({"pos_weights": 1.0}, "'pos_weights' (no list) for 2 texts; write one number for each"),
        ({"pos_weights": [1.0, 0.0]}, "'pos_weights' with 0.0; write a number above 0"),
        ({"pos_weights": [-2, 1]}, "'pos_weights' with -2; write a number above 0"),
        ({"pos_weights": [1.0, float("nan")]}, "'pos_weights' with nan; write a number above 0"),
        ({"pos_weights": [float("inf"), 1]}, "'pos_weights' with inf; write a number above 0"),
        ({"pos_weights": [1.0, None]}, "'pos_weights' with None; write a number above 0"),
        ({"pos_weights": ["3", 1]}, "'pos_weights' with '3'; write a number above 0"),
        ({"pos_weights": [True, 1]}, "'pos_weights' with True; write a number above 0"),
        ({"pos_scores": [0.1]}, "'pos_scores' (1) for 2 texts; write one number for each"),
        ({"neg_scores": [0.1, 2]}, "'neg_scores' (2) for 1 texts; write one number for each"),
        ({"neg_scores": [float("nan")]}, "'neg_scores' with nan; write a finite number"),
        ({"pos_scores": ["a", 1]}, "'pos_scores' with 'a'; write a finite number"),
    ],
)
def test_scores_and_weights_that_do_not_fit_are_refused(tiny_model, tmp_path, change, problem):
    with pytest.raises(InputError) as error:
        tokenised(tmp_path, tiny_model, SCORED, SCORED | change)
    where = f"{tmp_path / 'samples.jsonl'}: the sample of '车' has "
    assert str(error.value) == where + problem
    assert not (tmp_path / "tokens").exists()


def test_scores_may_be_negative_zero_or_integers(tiny_model, tmp_path):
    row = tokenised(tmp_path, tiny_model, SCORED | {"pos_scores": [0, -7]}).row(0)
    assert row["pos_scores"] == [0.0, -7.0]


def test_ids_that_were_stored_without_weights_are_written_again(tiny_model, tmp_path, monkeypatch):
    former = pa.schema([field for field in tokens.ROWS if field.name != "pos_weights"])
    with monkeypatch.context() as patched:
        patched.setattr(tokens, "ROWS", former)
        assert "pos_weights" not in tokenised(tmp_path, tiny_model, SCORED).row(0)
    assert tokenised(tmp_path, tiny_model, SCORED).row(0)["pos_weights"] == [3.0, 0.5]


def test_a_bert_tokenizer_gives_ids_and_token_types(tmp_path):
    characters = sorted(set("".join(str(value) for row in table_rows() for value in row.values())))
    words = Tokenizer(
        models.WordLevel(
            {
                word: i
                for i, word in enumerate(
                    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, "a", "b"]
                )
            },
            "[UNK]",
        )
    )
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    pairs = [(row["question"], row["doc"]) for row in table_rows()]
    for (query, passage), pair in zip(pairs, ours(tokenizer, tmp_path, pairs, 16, 20)):
        plain = tokenizer(query, passage, truncation="only_second", max_length=36)
        assert pair == {name: plain[name] for name in ("input_ids", "token_type_ids")}
        assert sum(pair["token_type_ids"]) == len(pair["input_ids"]) - len(query) - 2
