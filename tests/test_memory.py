import errno
import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from tunerank.core.errors import memory_ran_out
from tunerank.training.preflight import training_memory

PROGRAM = """
import json, resource, sys; sys.path.insert(0, sys.argv[1])
from tunerank.training.preflight import keep_freed_memory
import torch
kept = sys.argv[2] == "keep" and keep_freed_memory()
for _ in range(20):
    torch.ones(16 << 20)  # until the heap is as large as it gets
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16 << 20)  # 64 MB, touched, freed
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(mode: str) -> tuple[bool, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / "src"), mode],
        check=True,
        capture_output=True,
        text=True,
    )
    kept, count = json.loads(done.stdout)
    return kept, count


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_freed_block_is_reused_without_page_faults():
    kept, reused = faults("keep")
    if not kept:
        pytest.skip("this Python does not run on glibc's malloc")
    _, returned = faults("leave")
    assert returned > 100 and reused < returned / 10


def model() -> XLMRobertaForSequenceClassification:
    config = XLMRobertaConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=6, num_attention_heads=4,
        intermediate_size=256, num_labels=1, max_position_embeddings=130,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return XLMRobertaForSequenceClassification(config).train()


def test_memory_counts_weights_gradients_optimizer_and_activations():
    small = model()
    small.get_input_embeddings().requires_grad_(False)
    every = sum(weight.numel() for weight in small.parameters())
    layer = 8 * 64 + 2 * 256
    assert training_memory(small, 1000, 4, False) == pytest.approx(
        {
            "weights": every * 4e-9,
            "gradients and optimizer": (every - 6400) * 12e-9,
            "activations": 6 * layer * 4e-6,
        }
    )
    assert training_memory(small, 1000, 2, True)["activations"] == pytest.approx(
        (6 * 64 + layer) * 2e-6
    )


def test_the_estimate_of_activations_matches_what_autograd_keeps():
    small, kept = model(), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # No other storage can get the address of a kept one.
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    parameters = {weight.untyped_storage().data_ptr() for weight in small.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        small(
            input_ids=torch.full((20, 100), 7), attention_mask=torch.ones(20, 100, dtype=torch.long)
        ).logits.sum()
    measured = (
        sum(storage.nbytes() for address, storage in kept.items() if address not in parameters)
        / 1e9
    )
    assert training_memory(small, 2000, 4, False)["activations"] == pytest.approx(measured, rel=0.1)


def test_running_out_of_memory_is_distinguished_from_other_errors():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert all(
        map(
            memory_ran_out,
            (
                error.value,
                MemoryError(),
                torch.OutOfMemoryError("CUDA out of memory"),
                OSError(errno.ENOMEM, "no"),
            ),
        )
    )
    assert not memory_ran_out(RuntimeError("shape mismatch")) and not memory_ran_out(
        OSError(errno.ENOSPC, "no")
    )
