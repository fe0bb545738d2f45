"""Run the tests that train or score a model with the kernels of other CPUs; print a row for each.

    python tests/cpus.py [arguments of pytest]

Each kernel runs with one and with two threads. The result of a sum of floats depends on the order
of its terms, so on the width of the CPU's registers and on the number of threads. These switches
choose other kernels on one machine: ATEN_CPU_CAPABILITY for torch's own operations, MKL_CBWR for
MKL's matrix products, ONEDNN_MAX_CPU_ISA for oneDNN. (MKL_ENABLE_INSTRUCTIONS changed no bit on an
AMD EPYC.) The column `bits` shows whether a switch had an effect: it is a hash of a small network's
output and gradients. Rows with the same bits test the same arithmetic. TEST_BF16 selects no kernel:
it makes `precision: auto` mean bf16 in the tests' own processes, as on a chip that multiplies bf16.
"""

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
KERNELS = {
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "the chip's own": {},
    "the chip's own, bf16 for auto": {"TEST_BF16": "1"},
}
SWITCHES = {name for settings in KERNELS.values() for name in settings}


def bits() -> str:
    """Return a hash of a small network's output and gradients in float32, from this process.

    The network has matrix products, a normalisation and an activation.
    """
    import torch

    torch.set_num_threads(int(os.environ["TEST_THREADS"]))
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(384, 1536),
        torch.nn.GELU(),
        torch.nn.Linear(1536, 384),
        torch.nn.LayerNorm(384),
        torch.nn.Linear(384, 1),
    )
    out = model(torch.randn(96, 384))
    out.square().mean().backward()
    content = [out, *(weight.grad for weight in model.parameters())]
    return hashlib.sha256(
        b"".join(tensor.detach().numpy().tobytes() for tensor in content)
    ).hexdigest()[:8]


def main(*arguments: str) -> int:
    failed = False
    print(
        "| kernels | threads | bits | passed | failed | seconds |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for kernels, settings in KERNELS.items():
        for threads in (1, 2):
            environment = {
                name: value for name, value in os.environ.items() if name not in SWITCHES
            } | settings
            environment |= {"TEST_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
            # A thread that waits for the other leaves the core to the stages.
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
            command = [sys.executable, __file__, "--bits"]
            digest = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout.strip()
            command = [sys.executable, "-m", "pytest", "-m", "trained and not slow", *arguments]
            # Two processes of one thread, or one process of two threads.
            command += ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"] * (threads == 1)
            began = time.monotonic()
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True
            )
            seconds = time.monotonic() - began
            count = {
                word: int(number)
                for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout[-2000:])
            }
            bad = count.get("failed", 0) + count.get("error", 0)
            print(
                f"| {kernels} | {threads} | {digest} | {count.get('passed', 0)} | {bad} "
                f"| {seconds:.0f} |",
                flush=True,
            )
            if done.returncode:
                failed = True
                print(done.stdout[-8000:] + done.stderr[-2000:], file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:] == ["--bits"]:
        print(bits())
    else:
        sys.exit(main(*sys.argv[1:]))
