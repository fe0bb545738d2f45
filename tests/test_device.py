"""Test the choice of precision and attention; torch's report of the hardware is replaced."""

import platform

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tunerank.core.errors import InputError
from tunerank.models.checkpoint import load_classifier
from tunerank.models.device import (
    choose_attention,
    choose_precision,
    describe_machine,
    explain_precision,
    set_attention,
)

MACHINES = {
    "AVX2": ("x86_64", "AVX2", {"avx2"}, "fp32"),
    "AVX-512 without bf16": ("x86_64", "AVX512", {"avx2", "avx512_f", "avx512_vnni"}, "fp32"),
    "avx512_bf16": ("x86_64", "AVX512", {"avx2", "avx512_f", "avx512_vnni", "avx512_bf16"}, "bf16"),
    "avx512_bf16 on Windows": ("AMD64", "AVX512", {"avx512_bf16"}, "bf16"),
    "AMX": ("x86_64", "AVX512", {"avx512_f", "avx512_bf16", "amx_bf16", "amx_tile"}, "bf16"),
    "AMX held at AVX2": ("x86_64", "AVX2", {"avx512_f", "avx512_bf16", "amx_bf16"}, "fp32"),
    "Arm with bf16": ("aarch64", "DEFAULT", {"neon", "bf16"}, "bf16"),
    "Arm with bf16 on macOS": ("arm64", "DEFAULT", {"neon", "bf16"}, "bf16"),
    "Arm without bf16": ("aarch64", "DEFAULT", {"neon", "i8mm"}, "fp32"),
    "unknown": ("riscv64", "DEFAULT", {"bf16"}, "fp32"),
}


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def pretend(monkeypatch, architecture: str, capability: str, instructions: set[str]) -> None:
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(
        torch.cpu,
        "get_capabilities",
        lambda: dict.fromkeys(instructions, True) | {"avx512_fp16": False},
    )


@pytest.mark.parametrize("name", MACHINES)
def test_auto_is_bf16_on_a_cpu_that_multiplies_it(monkeypatch, name):
    *machine, expected = MACHINES[name]
    pretend(monkeypatch, *machine)
    assert choose_precision("auto") == expected
    assert choose_precision("fp32") == "fp32" and choose_precision("bf16") == "bf16"


def test_fp16_needs_a_gpu_and_auto_takes_it_on_an_old_one(monkeypatch):
    with pytest.raises(
        InputError, match="precision fp16 needs a CUDA device; set it to auto, bf16 or fp32"
    ):
        choose_precision("fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, expected in (
        ((6, 1), "fp16"),
        ((7, 5), "fp16"),
        ((8, 0), "bf16"),
        ((9, 0), "bf16"),
    ):
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda capability=capability: capability
        )
        assert choose_precision("auto") == expected
    assert explain_precision("auto") == (
        "bf16",
        "auto: the GPU has compute capability 9.0, bf16 needs 8.0",
    )


def test_the_machine_is_described_by_its_instructions_and_the_reason_for_the_precision(monkeypatch):
    pretend(
        monkeypatch,
        "x86_64",
        "AVX512",
        {"avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_bw"},
    )
    found = describe_machine("auto")
    assert found["instructions"] == ["avx2", "avx512_f", "avx512_vnni", "avx512_bf16"]
    assert (found["cpu_capability"], found["precision"]) == ("AVX512", "bf16")
    assert found["precision_why"] == "auto: the CPU has avx512_bf16"
    assert found["threads"] == torch.get_num_threads()
    assert describe_machine("fp32")["precision_why"] == "set in params.yaml"
    pretend(monkeypatch, "x86_64", "AVX2", {"avx2"})
    assert describe_machine("auto")["precision_why"] == (
        "auto: no instructions for bf16 (AMX, avx512_bf16, Arm's bf16) are in use"
    )


@pytest.mark.parametrize(
    "precision, training, cuda, expected",
    [
        ("bf16", True, False, "eager"),
        ("bf16", False, False, "sdpa"),
        ("fp32", True, False, "sdpa"),
        ("fp32", False, False, "sdpa"),
        ("bf16", True, True, "sdpa"),
        ("fp16", True, True, "sdpa"),
    ],
)
def test_attention_is_plain_only_for_training_in_bf16_on_a_cpu(
    monkeypatch, precision, training, cuda, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert choose_attention(precision, training) == expected


def test_attention_changes_neither_scores_nor_gradients_nor_the_saved_config(tiny_model, tmp_path):
    model, tokenizer = load_classifier(tiny_model)
    batch = tokenizer(
        [("红车", "这件车是红色的。"), ("船", "船")], padding=True, return_tensors="pt"
    )
    texts, found = [], []
    for training in (True, False):
        set_attention(model, "bf16", training)
        assert model.config._attn_implementation == ("eager" if training else "sdpa")
        model.zero_grad()
        logits = model(**batch).logits
        logits.sum().backward()
        found.append(
            (
                logits.detach(),
                model.base_model.encoder.layer[0].attention.self.query.weight.grad.clone(),
            )
        )
        model.save_pretrained(tmp_path / str(training))
        texts.append((tmp_path / str(training) / "config.json").read_text())
    # The order of the float32 sums differs.
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5) and torch.allclose(
        found[0][1], found[1][1], atol=1e-5
    )
    assert found[0][1].abs().max() > 1e-4 and texts[0] == texts[1]


def test_a_model_without_fused_attention_keeps_its_attention(tiny_model, monkeypatch):
    model, _ = load_classifier(tiny_model)
    monkeypatch.setattr(type(model), "_supports_sdpa", False)
    model.config._attn_implementation = "eager"
    set_attention(model, "fp32", training=False)
    assert model.config._attn_implementation == "eager"


def test_load_classifier_gives_a_classifier(tiny_model):
    assert isinstance(
        load_classifier(tiny_model)[0],
        type(AutoModelForSequenceClassification.from_pretrained(tiny_model)),
    )
