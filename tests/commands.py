"""Read the commands of the documentation: the lines of fenced blocks."""

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
    "experiments/seeds",
    "experiments/zero",
    "git ",
    "HF_TOKEN=",
    "infinity_emb ",
    "make ",
    "pip ",
    "python ",
    "tensorboard ",
    "tunerank ",
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_commands(page: Path) -> list[str]:
    """Return the commands of a page without comments, one per line, and its Python blocks."""
    commands = []
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            commands.append(block)
        elif language in ("", "sh", "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            commands += [
                command for line in lines if (command := without_comment(line)).startswith(PROGRAMS)
            ]
    return commands


def without_comment(line: str) -> str:
    """Return a line without its comment.

    >>> without_comment("dvc push   # all of it"), without_comment("  dvc exp   run -S 'a=#'")
    ('dvc push', "dvc exp run -S 'a=#'")
    """
    return " ".join(re.sub(r"\s{2,}#.*|^#.*", "", line).split())
