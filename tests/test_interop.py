"""Test that other libraries give the checkpoint's scores.

The libraries are FlagEmbedding, sentence-transformers and plain transformers.
"""

import numpy as np
import pytest
import torch
from conftest import table_rows
from FlagEmbedding import FlagReranker
from sentence_transformers import CrossEncoder as SentenceTransformersCrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunerank.models.cross_encoder import CrossEncoder

ROWS = table_rows()
DOCS = list(dict.fromkeys(row["doc"] for row in ROWS))
PAIRS = [(row["question"], doc) for row in ROWS[:12] for doc in DOCS]


@pytest.fixture(scope="module")
def ours(tiny_model):
    return CrossEncoder(tiny_model, max_length=128, precision="fp32", batch_tokens=500).score(PAIRS)


def plain(folder, pairs, max_length=128, dtype=torch.float32):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
    scores = []
    with torch.inference_mode():
        for query, passage in pairs:
            inputs = tokenizer(
                query, passage, truncation="only_second", max_length=max_length, return_tensors="pt"
            )
            scores.append(model(**inputs).logits.item())
    return np.array(scores)


def same_ranking(one, other):
    shape = (-1, len(DOCS))
    return (
        np.argsort(-np.reshape(one, shape), axis=1) == np.argsort(-np.reshape(other, shape), axis=1)
    ).all()


def test_plain_transformers_gives_the_same_scores_one_pair_at_a_time(tiny_model, ours):
    scores = plain(tiny_model, PAIRS)
    assert np.abs(scores - ours).max() < 1e-4 and same_ranking(scores, ours)
    assert scores.std() > 0.01  # constant scores would match any order
    # Two CPUs differ by 1e-6. Passages with a larger distance have the same order on each.
    assert np.diff(np.sort(scores.reshape(-1, len(DOCS)), axis=1)).min() > 1e-4


def test_flag_reranker_gives_the_same_scores(tiny_model, ours):
    scores = FlagReranker(str(tiny_model), use_fp16=False, devices=["cpu"]).compute_score(
        PAIRS, max_length=128
    )
    assert np.abs(np.array(scores) - ours).max() < 1e-4 and same_ranking(scores, ours)


def test_sentence_transformers_gives_the_same_scores(tiny_model, ours):
    model = SentenceTransformersCrossEncoder(str(tiny_model), device="cpu")
    scores = model.predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    assert np.abs(scores - ours).max() < 1e-4 and same_ranking(scores, ours)
    assert same_ranking(
        model.predict(PAIRS, show_progress_bar=False), ours
    )  # the default is a sigmoid


def test_scores_do_not_depend_on_order_repetition_or_batch(tiny_model, ours):
    other = CrossEncoder(tiny_model, max_length=128, precision="fp32", batch_tokens=64)
    order = np.random.default_rng(1).permutation(len(PAIRS))
    twice = [PAIRS[i] for i in order] + [PAIRS[i] for i in order]
    scores = other.score(twice)
    assert np.array_equal(scores[: len(order)], scores[len(order) :])
    assert np.abs(scores[: len(order)] - ours[order]).max() < 1e-5


def test_a_distinct_pair_is_scored_once(tiny_model):
    model = CrossEncoder(tiny_model, max_length=128, precision="fp32")
    forwarded = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: forwarded.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    model.score(PAIRS * 3)
    assert sum(forwarded) == len(set(PAIRS))


def test_long_pairs_are_cut_as_flag_reranker_cuts_them(tiny_model):
    pairs = [("车" * 200, DOCS[0]), ("灯是什么颜色？", DOCS[1] * 5), ("门" * 20, "窗" * 300)]
    ours = CrossEncoder(tiny_model, max_length=64, precision="fp32").score(pairs)
    theirs = FlagReranker(str(tiny_model), use_fp16=False, devices=["cpu"]).compute_score(
        pairs, max_length=64
    )
    assert np.abs(np.array(theirs) - ours).max() < 1e-4


def test_bf16_ranks_like_fp32(tiny_model, ours):
    """Random weights give close scores. Only distant scores must keep their order."""
    half = CrossEncoder(tiny_model, max_length=128, precision="bf16").score(PAIRS)
    apart = 0.05 * ours.std()
    differences = ours.reshape(-1, len(DOCS))[:, :, None] - ours.reshape(-1, len(DOCS))[:, None, :]
    halves = half.reshape(-1, len(DOCS))[:, :, None] - half.reshape(-1, len(DOCS))[:, None, :]
    far = np.abs(differences) > apart
    assert far.mean() > 0.5
    assert (np.sign(differences[far]) == np.sign(halves[far])).mean() > 0.98
