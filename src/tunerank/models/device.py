"""Choose the fastest precision and attention for the hardware, and describe the hardware."""

import platform
from importlib.metadata import version

import torch

from tunerank.core.errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

BF16 = {"x86_64": ("amx_bf16", "avx512_bf16"), "arm64": ("bf16", "sve_bf16")}
"""Architecture -> torch's names of instructions that multiply bf16. Without them bf16 is emulated,
several times slower than fp32."""
NAMED = (
    "avx2",
    "avx512_f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "neon",
    "sve",
    "i8mm",
    "bf16",
    "sve_bf16",
)
"""Instructions that affect speed or rounding; `describe_machine` lists them."""


def best_device() -> str:
    """Return "cuda" if torch can use a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def bf16_instructions() -> list[str]:
    """Return the CPU's instructions that multiply bf16.

    There are none if torch is limited to less than AVX-512 (ATEN_CPU_CAPABILITY=avx2), so that a
    newer CPU can stand in for an older one.
    """
    machine = platform.machine()
    architecture = {"AMD64": "x86_64", "aarch64": "arm64"}.get(machine, machine)
    kernels = torch.backends.cpu.get_cpu_capability()
    if architecture == "x86_64" and not kernels.startswith("AVX512"):
        return []
    capabilities = torch.cpu.get_capabilities()
    return [name for name in BF16.get(architecture, ()) if capabilities.get(name)]


def choose_precision(wanted: str) -> str:
    """Return the precision to use; `auto` is resolved as in `explain_precision`.

    Raises:
        InputError: fp16 without a CUDA device.
    """
    return explain_precision(wanted)[0]


def explain_precision(wanted: str) -> tuple[str, str]:
    """Return the precision and the reason for it.

    `auto` is bf16 on a GPU of compute capability 8 (Ampere) or more and on a CPU with instructions
    of `BF16`, fp16 on an older GPU, else fp32.

    Raises:
        InputError: fp16 without a CUDA device.
    """
    cuda = torch.cuda.is_available()
    if wanted == "fp16" and not cuda:
        raise InputError("precision fp16 needs a CUDA device; set it to auto, bf16 or fp32")
    if wanted != "auto":
        return wanted, "set in params.yaml"
    if cuda:
        major, minor = torch.cuda.get_device_capability()
        precision = "bf16" if major >= 8 else "fp16"
        return precision, f"auto: the GPU has compute capability {major}.{minor}, bf16 needs 8.0"
    if instructions := bf16_instructions():
        return "bf16", f"auto: the CPU has {', '.join(instructions)}"
    return "fp32", "auto: no instructions for bf16 (AMX, avx512_bf16, Arm's bf16) are in use"


def choose_attention(precision: str, training: bool) -> str:
    """Return the fastest implementation of attention, by its name in transformers.

    It is the fused one (`sdpa`), except for training in bf16 on a CPU: PyTorch has no fused
    backward pass for it, and the plain formula (`eager`) is 1.3 to 1.5 times as fast at 90 to 450
    tokens (benchmarks/precision.py, docs/performance.md).
    """
    return "eager" if training and precision == "bf16" and not torch.cuda.is_available() else "sdpa"


def set_attention(model: torch.nn.Module, precision: str, training: bool) -> None:
    """Set a model's attention to `choose_attention`, if the model has a fused one."""
    if model._supports_sdpa:
        model.set_attn_implementation(choose_attention(precision, training))


def describe_machine(wanted: str) -> dict:
    """Return what results depend on besides code, data and parameters; no times or host names.

    Args:
        wanted: the precision in params.yaml.
    """
    names = ("torch", "transformers", "FlagEmbedding", "tokenizers", "numpy", "bm25s", "jieba")
    capabilities = torch.cpu.get_capabilities()
    precision, why = explain_precision(wanted)
    return {
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu ({platform.machine()})",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": [name for name in NAMED if capabilities.get(name)],
        "threads": torch.get_num_threads(),
        "precision": precision,
        "precision_why": why,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in names},
    }
