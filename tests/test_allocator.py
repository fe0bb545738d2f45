import json
import subprocess
import sys

import pytest

from conftest import ROOT

PROGRAM = """
import json, resource, sys; sys.path.insert(0, sys.argv[1])
from reranker.allocator import keep_freed_memory
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
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(ROOT / "src"), mode], check=True, capture_output=True, text=True)
    kept, count = json.loads(done.stdout)
    return kept, count


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_freed_block_is_used_again_without_page_faults():
    kept, reused = faults("keep")
    if not kept:
        pytest.skip("this Python does not run on glibc's malloc")
    _, returned = faults("leave")
    assert returned > 100 and reused < returned / 10
