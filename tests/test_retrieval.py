import marshal
import math
import tempfile
from collections import Counter

import jieba
import numpy as np
import pytest
import torch
from conftest import ROOT

from tunerank.data.passages import Passage, centered_span, windows
from tunerank.params.load import load
from tunerank.retrieval.candidates import Retrieval
from tunerank.retrieval.fusion import fuse, fused_top_k
from tunerank.retrieval.retrievers import BM25, DenseEncoder, Words

PARAMS = load(ROOT / "tests/params.yaml")
RETRIEVER = PARAMS.retriever.model_copy(update={"precision": "fp32"})
TEXTS = ["苹果手机的价格", "香蕉的价格与产地", "手机保修两年", "产地是海南", "！？"]


def asked(question: str, *relevant: str, negatives: tuple[str, ...] = ()) -> dict:
    """Return a question with relevant passages, the first of the highest grade."""
    graded = enumerate(reversed(relevant), 1)
    return {
        "question": question,
        "relevant": [{"passage": key, "grade": grade} for grade, key in graded][::-1],
        "negatives": list(negatives),
    }


@pytest.mark.parametrize(
    "text, size, stride, spans",
    [
        ("abcdefgh", 4, 3, [(0, 4), (3, 7), (6, 8)]),
        ("abcdefgh", 0, 0, [(0, 8)]),
        ("abc", 4, 2, [(0, 3)]),
        ("abcd", 4, 4, [(0, 4)]),
        ("abcde", 4, 4, [(0, 4), (4, 5)]),
        ("", 4, 2, [(0, 0)]),
    ],
)
def test_windows_have_the_expected_spans(text, size, stride, spans):
    assert windows(text, size, stride) == spans


@pytest.mark.parametrize("length", range(1, 40))
@pytest.mark.parametrize("size, stride", [(5, 1), (5, 3), (5, 5), (8, 4)])
def test_windows_cover_every_character_and_each_ends_after_the_one_before(length, size, stride):
    spans = windows("x" * length, size, stride)
    assert {i for start, end in spans for i in range(start, end)} == set(range(length))
    assert all(end - start <= size for start, end in spans)
    assert all(later[1] > earlier[1] for earlier, later in zip(spans, spans[1:]))


@pytest.mark.parametrize(
    "span, size, length, expected",
    [
        ((4, 6), 6, 10, (2, 8)),
        ((0, 2), 6, 10, (0, 6)),
        ((8, 10), 6, 10, (4, 10)),
        ((3, 6), 6, 10, (1, 7)),
        ((3, 6), 3, 10, (3, 6)),
        ((9, 10), 3, 10, (7, 10)),
        ((0, 2), 0, 10, (0, 10)),
        ((0, 2), 20, 10, (0, 10)),
    ],
)
def test_a_view_has_the_window_in_its_middle(span, size, length, expected):
    assert centered_span(*span, size, length) == expected


def test_whole_passages_can_be_shown_although_windows_are_searched(encoder):
    passages = {f"p{i}": Passage("", text * 3) for i, text in enumerate(TEXTS)}
    question = asked("手机保修几年", "p4")
    found = []
    for shown in (0, 6):
        params = PARAMS.retrieve.model_copy(
            update={"window": 6, "stride": 3, "shown": shown, "depth": 5}
        )
        found += [
            listed
            for _, listed in Retrieval(passages, encoder, params).candidates([question], "all")
        ]
    assert [c["dense_score"] for c in found[0]] == [c["dense_score"] for c in found[1]]
    assert all(c["views"] == [(0, len(passages[c["passage"]].text))] for c in found[0])
    assert all(end - start == 6 for c in found[1] for start, end in c["views"])


def test_fusion_adds_weighted_reciprocal_ranks():
    fused = fuse([(["a", "b", "c"], 0.5), (["c", "d"], 0.5)], 60)
    assert [key for key, _ in fused] == ["c", "a", "b", "d"]
    assert dict(fused) == pytest.approx(
        {"a": 0.5 / 61, "b": 0.5 / 62, "c": 0.5 / 63 + 0.5 / 61, "d": 0.5 / 62}
    )


def test_bm25_scores_equal_the_formula():
    """The formula is Lucene's BM25.

    idf = ln(1 + (N - n + 0.5) / (n + 0.5)); the factor of tf is
    tf / (tf + k1 (1 - b + b dl / avgdl)).
    """
    texts = TEXTS[:4]
    bm25 = BM25(texts, k1=1.5, b=0.75)
    documents = [BM25.tokens(text) for text in texts]
    average = sum(map(len, documents)) / len(documents)
    query = BM25.tokens("手机的价格")
    expected = []
    for document in documents:
        counts, score = Counter(document), 0.0
        for token in query:
            n = sum(token in other for other in documents)
            if counts[token]:
                idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
                score += (
                    idf
                    * counts[token]
                    / (counts[token] + 1.5 * (1 - 0.75 + 0.75 * len(document) / average))
                )
        expected.append(score)
    scores = bm25.scores("手机的价格")
    assert scores == pytest.approx(expected, abs=1e-5)
    ranked = sorted((i for i in range(len(texts)) if expected[i] > 0), key=lambda i: -expected[i])
    assert bm25.top(scores, 10) == ranked
    assert bm25.top(scores, 1) == ranked[:1]


def test_bm25_finds_nothing_for_unknown_words():
    bm25 = BM25(TEXTS, 1.5, 0.75)
    for query in ("zebra", "？"):
        assert bm25.scores(query).tolist() == [0.0] * 5
        assert bm25.top(bm25.scores(query), 5) == []


CANDIDATES = [
    {"passage": "a", "dense": 1, "bm25": None},
    {"passage": "b", "dense": 2, "bm25": 3},
    {"passage": "c", "dense": 3, "bm25": 1},
    {"passage": "d", "dense": 9, "bm25": 2},
    {"passage": "e", "dense": 4, "bm25": None},
]
ENSEMBLE = PARAMS.retrieve.model_copy(
    update={"bm25_depth": 2, "dense_weight": 0.5, "bm25_weight": 0.5, "rrf_k": 60}
)


def test_the_first_stage_fuses_a_dense_list_with_a_separate_bm25_list():
    # Depth 1: dense [a], bm25 [c, d]. a and c tie at rank 1; the dense list comes first.
    assert fused_top_k(CANDIDATES, 1, ENSEMBLE) == ["a"]
    assert fused_top_k(CANDIDATES, 2, ENSEMBLE) == ["a", "c"]
    # Depth 3: dense [a, b, c], bm25 [c, d]. c is in both.
    assert fused_top_k(CANDIDATES, 3, ENSEMBLE) == ["c", "a", "b"]
    assert fused_top_k(CANDIDATES, 9, ENSEMBLE) == ["c", "d", "a", "b", "e"]


def test_an_own_search_is_one_list_that_keeps_its_order():
    own = ENSEMBLE.model_copy(update={"run": "elastic.trec", "dense_weight": 0.0, "bm25_depth": 1})
    found = [{"passage": name, "run": rank} for name, rank in zip("abcd", (2, None, 1, 3))]
    assert [fused_top_k(found, depth, own) for depth in (1, 2, 9)] == [
        ["c"],
        ["c", "a"],
        ["c", "a", "d"],
    ]
    assert fused_top_k([], 3, own) == []


def test_a_list_with_weight_zero_is_left_out():
    dense_only = ENSEMBLE.model_copy(update={"bm25_weight": 0.0})
    assert fused_top_k(CANDIDATES, 9, dense_only) == ["a", "b", "c", "e", "d"]
    bm25_only = ENSEMBLE.model_copy(update={"dense_weight": 0.0})
    assert fused_top_k(CANDIDATES, 9, bm25_only) == ["c", "d"]


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return DenseEncoder(
        str(tiny_model), RETRIEVER.model_copy(update={"max_length": 64}), batch_tokens=40
    )


def test_vectors_are_unit_length_in_input_order_and_do_not_depend_on_the_batch(encoder):
    texts = ["车是什么颜色？", "灯", "门卖多少元？它的价格是五元"]
    together = encoder.encode(texts, "query: ", "texts")
    assert together.shape == (3, 32) and together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    alone = np.concatenate([encoder.encode([text], "query: ", "text") for text in texts])
    assert np.abs(together - alone).max() < 1e-5


def test_pooling_is_the_mean_over_tokens_or_the_first_token(tiny_model, encoder):
    inputs = encoder.tokenizer("query: 车是什么", return_tensors="pt")
    with torch.inference_mode():
        hidden = encoder.model(**inputs).last_hidden_state[0]
    mean = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
    first = torch.nn.functional.normalize(hidden[0], dim=0).numpy()
    assert encoder.encode(["车是什么"], "query: ", "text")[0] == pytest.approx(mean, abs=1e-5)
    cls = DenseEncoder(
        str(tiny_model), RETRIEVER.model_copy(update={"pooling": "cls", "max_length": 64})
    )
    assert cls.encode(["车是什么"], "query: ", "text")[0] == pytest.approx(first, abs=1e-5)


def test_the_prefix_and_the_length_limit_reach_the_model(encoder, tiny_model):
    plain = encoder.encode(["车是什么"], "", "text")
    assert np.abs(encoder.encode(["车是什么"], "query: ", "text") - plain).max() > 1e-3
    short = DenseEncoder(str(tiny_model), RETRIEVER.model_copy(update={"max_length": 8}))
    assert short.encode(["车" * 30], "", "t") == pytest.approx(
        short.encode(["车" * 7], "", "t"), abs=1e-6
    )


@pytest.mark.parametrize("title", ["", "红伞说明"])
def test_candidates_are_ranked_like_a_plain_loop(encoder, title, monkeypatch):
    monkeypatch.setattr(
        "tunerank.retrieval.candidates.QUESTION_BLOCK", 1
    )  # one question at a time, as if there were too many for memory
    monkeypatch.setattr("tunerank.retrieval.candidates.COSINE_BLOCK", 1)
    passages = {f"p{i}": Passage(title if i % 2 else "", text * 3) for i, text in enumerate(TEXTS)}
    params = PARAMS.retrieve.model_copy(
        update={"window": 6, "stride": 3, "shown": 10, "depth": 3, "bm25_depth": 2}
    )
    questions = [
        asked("手机保修几年", "p4"),
        asked("产地在哪", "p0"),
    ]
    retrieval = Retrieval(passages, encoder, params)
    listed = list(retrieval.candidates(iter(questions), "all"))
    assert [question for question, _ in listed] == questions
    for question, found in listed:
        query = encoder.encode([question["question"]], "query: ", "q")[0]
        scores, best = {}, {}
        for key, passage in passages.items():
            spans = windows(passage.text, 6, 3)
            before = f"passage: {passage.title}。" if passage.title else "passage: "
            near = [
                float(encoder.encode([passage.text[s:e]], before, "w")[0] @ query) for s, e in spans
            ]
            whole = float(encoder.encode([passage.text], before, "p")[0] @ query)
            scores[key] = (whole + max(near)) / 2
            best[key] = [
                span for span, value in zip(spans, near) if value > max(near) - 1e-4
            ]  # the texts are repeated
        order = sorted(scores, key=lambda key: -scores[key])
        for candidate in found:
            assert candidate["dense_score"] == pytest.approx(scores[candidate["passage"]], abs=1e-4)
            assert candidate["dense"] == order.index(candidate["passage"]) + 1
            ((start, end),) = candidate["views"]
            assert any(start <= first and last <= end for first, last in best[candidate["passage"]])
            assert candidate["nearest"] in best[candidate["passage"]]
            length = len(passages[candidate["passage"]].text)
            assert end - start == min(10, length) and end <= length
        listed = [c["passage"] for c in found]
        assert set(order[:3]) <= set(listed) and question["relevant"][0]["passage"] in listed
        assert len(listed) == len(set(listed))
        assert {c["bm25"] for c in found if c["bm25"]} <= {1, 2}


def test_without_a_dense_retriever_candidates_are_from_bm25_and_the_own_passage():
    passages = {f"p{i}": Passage("", text) for i, text in enumerate(TEXTS)}
    params = PARAMS.retrieve.model_copy(
        update={
            "dense_weight": 0.0,
            "window": 0,
            "stride": 0,
            "shown": 0,
            "depth": 5,
            "bm25_depth": 2,
        }
    )
    assert not params.dense
    retrieval = Retrieval(passages, None, params)
    question = "手机保修几年"
    ((_, found),) = retrieval.candidates([asked(question, "p3")], "all")
    scores = retrieval.bm25.scores(question)
    assert [c["passage"] for c in found] == ["p2", "p0", "p3"]  # 2, 1 and 0 words in common
    assert [c["bm25"] for c in found] == [1, 2, None]
    assert [c["bm25_score"] for c in found] == pytest.approx([scores[2], scores[0], 0.0], abs=1e-4)
    assert {(c["dense"], c["dense_score"]) for c in found} == {(None, 0.0)}
    assert (
        [c["views"] for c in found]
        == [[c["nearest"]] for c in found]
        == [[(0, len(TEXTS[i]))] for i in (2, 0, 3)]
    )
    assert fused_top_k(found, 5, params) == ["p2", "p0"]


def test_relevant_passages_and_then_negatives_follow_the_candidates():
    passages = {f"p{i}": Passage("", text) for i, text in enumerate(TEXTS)}
    params = PARAMS.retrieve.model_copy(
        update={"dense_weight": 0.0, "window": 0, "stride": 0, "shown": 0, "bm25_depth": 1}
    )
    question = asked("手机保修几年", "p3", "p0", negatives=("p4", "p2", "p0"))
    ((_, found),) = Retrieval(passages, None, params).candidates([question], "all")
    assert [(c["passage"], c["bm25"]) for c in found] == [
        ("p2", 1), ("p3", None), ("p0", None), ("p4", None),
    ]  # fmt: skip
    assert [c["bm25_score"] > 0 for c in found] == [True, False, True, False]
    assert fused_top_k(found, 5, params) == ["p2"]


def test_judged_passages_have_their_true_dense_ranks_and_scores(encoder):
    passages = {f"p{i}": Passage("", text) for i, text in enumerate(TEXTS)}
    question = asked("手机保修几年", "p0", "p1", negatives=("p2", "p3", "p4"))
    found = []
    for depth in (1, 5):
        params = PARAMS.retrieve.model_copy(update={"depth": depth, "bm25_depth": 1})
        ((_, listed),) = Retrieval(passages, encoder, params).candidates([question], "all")
        found.append({c["passage"]: (c["dense"], c["dense_score"]) for c in listed})
    assert found[0] == found[1]
    assert sorted(rank for rank, _ in found[0].values()) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "weight, window, dense", [(0.5, 6, True), (0.0, 6, True), (0.5, 0, True), (0.0, 0, False)]
)
def test_the_dense_retriever_runs_only_for_candidates_or_windows(weight, window, dense):
    assert (
        PARAMS.retrieve.model_copy(update={"dense_weight": weight, "window": window}).dense is dense
    )


@pytest.mark.parametrize("depth", [1, 3, 10, 200])
def test_the_top_scores_equal_the_head_of_a_stable_sort(depth):
    scores = np.random.default_rng(depth).integers(0, 6, 100).astype(np.float32)  # with many ties
    order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > 0]
    assert BM25.top(scores, depth) == order[:depth]


def test_a_split_without_questions_has_no_candidates(encoder):
    passages = {f"p{i}": Passage("", text) for i, text in enumerate(TEXTS)}
    assert (
        list(
            Retrieval(
                passages, encoder, PARAMS.retrieve.model_copy(update={"depth": 5})
            ).candidates([], "valid")
        )
        == []
    )
    assert encoder.encode([], "query: ", "none").shape == (0, 32)


def test_without_windows_the_whole_passage_is_shown(encoder):
    passages = {f"p{i}": Passage("", text) for i, text in enumerate(TEXTS)}
    params = PARAMS.retrieve.model_copy(update={"window": 0, "stride": 0, "shown": 0, "depth": 5})
    ((_, found),) = Retrieval(passages, encoder, params).candidates([asked("手机", "p2")], "all")
    assert {(c["passage"], *c["views"]) for c in found} == {
        (f"p{i}", (0, len(t))) for i, t in enumerate(TEXTS)
    }


def test_the_first_candidates_have_several_views(encoder):
    """Long texts have windows (0, 6), (3, 9) ...; three views of 6 share at most 3 characters.

    A short text has fewer views.
    """
    passages = {
        "short": Passage("", "手机保修两年吗"),
        **{f"p{i}": Passage("", text * 4) for i, text in enumerate(TEXTS)},
    }
    question = asked("手机保修几年", "p2")
    params = PARAMS.retrieve.model_copy(
        update={"window": 6, "stride": 3, "shown": 6, "depth": 6, "views": 3, "views_depth": 4}
    )
    retrieval = Retrieval(passages, encoder, params)
    ((_, found),) = retrieval.candidates([question], "all")
    ((_, single),) = Retrieval(
        passages, encoder, params.model_copy(update={"views": 1})
    ).candidates([question], "all")
    assert [
        {**c, "views": c["views"][:1]} for c in found
    ] == single  # the order and the nearest view stay the same
    assert {len(c["views"]) for c in found[4:]} == {1}
    query = encoder.encode([question["question"]], "query: ", "q")[0]
    for candidate in found[:4]:
        text, views = passages[candidate["passage"]].text, candidate["views"]
        assert len(views) == (1 if candidate["passage"] == "short" else 3)
        assert all(abs(a - b) >= 3 for i, (a, _) in enumerate(views) for b, _ in views[:i])
        near = [
            float(encoder.encode([text[start:end]], "passage: ", "w")[0] @ query)
            for start, end in views
        ]
        assert near == pytest.approx(sorted(near, reverse=True), abs=1e-4)


def test_words_are_jiebas_own_whatever_files_are_in_the_temporary_folder(tmp_path, monkeypatch):
    """jieba itself would load these files, where every character is a word of its own."""
    (tmp_path / "jieba.cache").write_bytes(
        marshal.dumps(({character: 1 for character in "笔记本电脑坏了"}, 7))
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert Words().lcut("笔记本电脑坏了", HMM=False) == ["笔记本电脑", "坏", "了"]
    assert jieba.Tokenizer().lcut("笔记本电脑坏了", HMM=False) == [
        "笔",
        "记",
        "本",
        "电",
        "脑",
        "坏",
        "了",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["jieba.cache"]


class Noisy:
    """An encoder that adds the noise of another order of summation to each vector."""

    def __init__(self, encoder, seed: int):
        self.encoder, self.params, self.random = (
            encoder,
            encoder.params,
            np.random.default_rng(seed),
        )

    def encode(self, texts, prefix, what):
        vectors = self.encoder.encode(texts, prefix, what)
        return vectors + self.random.uniform(-1e-7, 1e-7, vectors.shape).astype(np.float32)


def test_rounding_by_another_cpu_and_the_order_of_the_corpus_change_no_candidate(encoder):
    """p5 and p6 have equal texts, so their ids decide their order."""
    passages = {f"p{i}": Passage("", text) for i, text in enumerate([*TEXTS, TEXTS[0], TEXTS[0]])}
    params = PARAMS.retrieve.model_copy(
        update={"window": 4, "stride": 2, "shown": 6, "depth": 7, "views": 2, "views_depth": 3}
    )
    question = asked("手机的价格", "p3")

    def found(corpus, encoder):
        ((_, listed),) = Retrieval(corpus, encoder, params).candidates([question], "all")
        return listed

    expected = found(passages, encoder)
    backwards = dict(reversed(passages.items()))
    assert [found(backwards, Noisy(encoder, seed)) for seed in range(5)] == [expected] * 5
    equal = [c for c in expected if c["passage"] in ("p0", "p5", "p6")]
    assert [c["passage"] for c in equal] == ["p0", "p5", "p6"] and len(
        {c["dense_score"] for c in equal}
    ) == 1
    assert all(
        round(c[name], 4) == c[name] for c in expected for name in ("dense_score", "bm25_score")
    )


def test_the_encoder_computes_in_the_given_precision(tiny_model):
    settings = RETRIEVER.model_copy(update={"max_length": 100})
    vectors = {}
    for precision in ("fp32", "bf16"):
        made = DenseEncoder(str(tiny_model), settings.model_copy(update={"precision": precision}))
        vectors[precision] = made.encode(TEXTS, "", "texts")
        assert vectors[precision].dtype == np.float32
    cosines = (vectors["fp32"] * vectors["bf16"]).sum(1)
    # bf16 has 8 bits of mantissa: the digits differ, the direction is the same.
    assert (vectors["fp32"] != vectors["bf16"]).any() and cosines.min() > 0.99
    assert np.linalg.norm(vectors["bf16"], axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
