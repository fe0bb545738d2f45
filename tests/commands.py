"""The commands that the documentation shows: what stands in fenced blocks."""

import re
from pathlib import Path

from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = (
    "cat ",
    "curl ",
    "dvc ",
    "experiments/ablation",
    "experiments/article",
    "experiments/zero",
    "git ",
    "HF_TOKEN=",
    "infinity_emb ",
    "make ",
    "pip ",
    "python ",
    "tensorboard ",
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown(page: Path) -> list[str]:
    """The commands of a page, one a line, without comments; Python examples whole, as they stand."""
    found = []
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            found.append(block)
        elif language in ("", "sh", "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [command for line in lines if (command := without_comment(line)).startswith(PROGRAMS)]
    return found


def without_comment(line: str) -> str:
    """
    >>> without_comment("dvc push   # all of it"), without_comment("  dvc exp   run -S 'a=#'")
    ('dvc push', "dvc exp run -S 'a=#'")
    """
    return " ".join(re.sub(r"\s{2,}#.*|^#.*", "", line).split())
