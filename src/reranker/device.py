"""The precision and the attention that are fastest on the hardware at hand, and a description of that hardware."""

import platform
from importlib.metadata import version

import torch

from reranker.errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

BF16 = {"x86_64": ("amx_bf16", "avx512_bf16"), "arm64": ("bf16", "sve_bf16")}
"""Architecture -> instructions that multiply bf16, under torch's names. Without one of them bf16 is emulated, several times slower
than fp32."""
NAMED = ("avx2", "avx512_f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "neon", "sve", "i8mm", "bf16", "sve_bf16")
"""Instructions that speed or rounding depends on, as `describe_machine` lists them."""


def bf16_instructions() -> list[str]:
    """The CPU's instructions that multiply bf16. None on x86 where torch is held below AVX-512 (ATEN_CPU_CAPABILITY=avx2), so that
    a chip can stand for an older one."""
    found = torch.cpu.get_capabilities()
    architecture = {"AMD64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    if architecture == "x86_64" and not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return []
    return [name for name in BF16.get(architecture, ()) if found.get(name)]


def choose_precision(wanted: str) -> str:
    """The precision that `wanted` stands for here: `auto` is bf16 where the hardware multiplies it (`explain_precision`).

    Raises:
        InputError: fp16 without a CUDA device.
    """
    return explain_precision(wanted)[0]


def explain_precision(wanted: str) -> tuple[str, str]:
    """(precision, why it was chosen). `auto`: bf16 on a GPU of compute capability 8 (Ampere) or more and on a CPU with
    instructions of `BF16`, fp16 on an older GPU, else fp32."""
    cuda = torch.cuda.is_available()
    if wanted == "fp16" and not cuda:
        raise InputError("precision fp16 needs a CUDA device; set it to auto, bf16 or fp32")
    if wanted != "auto":
        return wanted, "set in params.yaml"
    if cuda:
        capability = "{}.{}".format(*torch.cuda.get_device_capability())
        new = torch.cuda.get_device_capability()[0] >= 8
        return ("bf16" if new else "fp16"), f"auto: the GPU has compute capability {capability}, bf16 needs 8.0"
    if found := bf16_instructions():
        return "bf16", f"auto: the CPU has {', '.join(found)}"
    return "fp32", "auto: no instructions for bf16 (AMX, avx512_bf16, Arm's bf16) are in use"


def choose_attention(precision: str, training: bool) -> str:
    """The implementation of attention that is fastest here, as transformers names it.

    The fused one (`sdpa`), except for training in bf16 on a CPU. PyTorch has no fused backward pass for that, and the plain
    formula (`eager`) is 1.3 to 1.5 times as fast at 90 to 450 tokens (benchmarks/precision.py, docs/performance.md).
    """
    return "eager" if training and precision == "bf16" and not torch.cuda.is_available() else "sdpa"


def set_attention(model: torch.nn.Module, precision: str, training: bool) -> None:
    """Switch a model between the two implementations; one that has no fused attention keeps its own."""
    if model._supports_sdpa:
        model.set_attn_implementation(choose_attention(precision, training))


def describe_machine(wanted: str) -> dict:
    """Everything a result may depend on besides code, data and parameters; no times and no host names.

    Args:
        wanted: the precision in params.yaml.
    """
    names = ("torch", "transformers", "FlagEmbedding", "tokenizers", "numpy", "bm25s", "jieba")
    found = torch.cpu.get_capabilities()
    precision, why = explain_precision(wanted)
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": [name for name in NAMED if found.get(name)],
        "threads": torch.get_num_threads(),
        "precision": precision,
        "precision_why": why,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in names},
    }
