"""Test batches of similar lengths, and threads that score one batch each."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunerank.models.batching import batch_threads, length_batches, map_batches
from tunerank.models.cross_encoder import CrossEncoder


@pytest.mark.parametrize(
    "lengths, batch_tokens, threads, expected",
    [
        ([], 10, 2, []),
        ([3, 9, 4, 4], 12, 1, [[1], [2, 3, 0]]),
        ([20, 3], 10, 1, [[0], [1]]),  # a text that is longer than a batch has its own batch
        ([4, 4, 4, 4], 100, 1, [[0, 1, 2, 3]]),
        ([4, 4, 4, 4], 100, 2, [[0, 1], [2, 3]]),  # little work is shared by all threads
        ([0, 0], 10, 2, [[0], [1]]),
        # An equal share is 13 tokens, which the padded 9 + 9 exceed: no third batch for that.
        ([9, 8, 7, 2], 100, 2, [[0, 1], [2, 3]]),
        ([9, 8, 7, 2], 9, 2, [[0], [1], [2], [3]]),
    ],
)
def test_batches_are_those_worked_out_by_hand(lengths, batch_tokens, threads, expected):
    assert length_batches(lengths, batch_tokens, threads) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200), st.integers(1, 4))
def test_every_text_is_in_one_batch_within_the_budget(lengths, batch_tokens, threads):
    batches = length_batches(lengths, batch_tokens, threads)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(
        len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= batch_tokens
        for batch in batches
    )
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_batches_run_in_parallel_with_one_thread_each(three_threads):
    meeting = threading.Barrier(3, timeout=30)  # only three calls at once can pass

    def call(batch):
        meeting.wait()
        return batch[0], torch.get_num_threads()

    assert batch_threads(torch.device("cpu")) == 3 and batch_threads(torch.device("cuda")) == 1
    assert list(map_batches(call, [[n] for n in range(6)], 3)) == [(n, 1) for n in range(6)]
    assert torch.get_num_threads() == 3


def test_an_error_in_a_batch_reaches_the_caller_and_restores_the_number_of_threads(three_threads):
    def call(batch):
        if batch == [2]:
            raise MemoryError("of batch 2")
        return batch

    with pytest.raises(MemoryError, match="of batch 2"):
        list(map_batches(call, [[n] for n in range(50)], 3))
    assert torch.get_num_threads() == 3


def test_scores_are_the_same_with_one_thread_and_with_three(tiny_model, three_threads):
    pairs = [(f"问题{n}？", "车" * (n % 30 + 1)) for n in range(200)]
    encoder = CrossEncoder(tiny_model, 100, "fp32", batch_tokens=256)
    by_three = encoder.score(pairs)
    torch.set_num_threads(1)
    assert np.array_equal(encoder.score(pairs), by_three) and len(set(by_three.tolist())) > 20
