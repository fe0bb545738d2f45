"""Write Markdown: escaped text for the model card and pull requests, and the table of results."""

import re
from collections.abc import Sequence

from tunerank.evaluation.significance import best_first_stage, first_stage_title
from tunerank.reranking.ways import system_title

GROUPS = {
    "all": "all",
    "unseen": "unseen passages",
    "seen": "seen passages",
    "article": "the article's protocol",
}
SHORT_KS = (1, 3, 5, 8)
"""The k of hit@k in the tables of the standard protocol."""


def plain(text: str) -> str:
    r"""Return the text escaped for Markdown, HTML and the Hub's formulas, in one line.

    >>> plain("a|b <i>*c*</i>\n[d](e)")
    'a\\|b \\<i\\>\\*c\\*\\</i\\> \\[d\\](e)'
    """
    return re.sub(r"([\\`*_\[\]<>|#~$&!])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    r"""Return the text as a code span that can stand in a table's cell.

    A bar would end the cell (https://github.github.com/gfm/#example-200).

    >>> print(code("a|b"), code("x`y"))
    `a\|b` `` x`y ``
    """
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def markdown_table(result: dict, ks: Sequence[int], cutoff: int) -> str:
    """Return the results as Markdown, for a terminal or a README.

    Args:
        result: the content of metrics/eval.json.
        ks, cutoff: as in `evaluate`.
    """
    short_ks = [k for k in SHORT_KS if k == 1 or k in ks]
    standard = [*(f"hit@{k}" for k in short_ks), f"MRR@{cutoff}", f"nDCG@{cutoff}"]
    standard += several_names(result, ks, cutoff)
    lines = []
    for group in (name for name in GROUPS if name in result):
        columns = [f"hit@{k}" for k in ks] if group == "article" else standard
        count = result[group]["questions"]
        lines += [f"{count} {split_name(result['split'])} questions, {GROUPS[group]}", ""]
        lines += [f"| system | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
        for system, values in result[group].items():
            if system != "questions":
                cells = [f"{values[name]:.3f}" for name in columns]
                lines.append(f"| {system_title(system)} | {' | '.join(cells)} |")
        lines.append("")
        if group == "all":
            lines += [*_headline(result, cutoff), ""]
    return "\n".join(lines)


def split_name(split: str) -> str:
    """Return a split's name for readers: validation for valid."""
    return "validation" if split == "valid" else split


def several_names(result: dict, ks: Sequence[int], cutoff: int) -> list[str]:
    """Return the deepest recall and MAP, where the run measures them for several passages."""
    names = (f"recall@{max(ks)}", f"MAP@{cutoff}")
    return [name for name in names if name in result["all"]["reranker"]]


def _headline(result: dict, cutoff: int) -> list[str]:
    """Return the gain over the first stage that would be deployed without a reranker."""
    name = f"MRR@{cutoff}"
    rival = best_first_stage(result, name)
    lines = [
        f"Against {first_stage_title(result, name)}, with 95 % intervals; "
        f"one question is worth {1 / result['all']['questions']:.4f}:",
        "",
    ]
    for system, rivals in result["against"]["all"].items():
        found = rivals[rival]["hit@1"]
        interval = f"[{found['low']:+.3f}, {found['high']:+.3f}]"
        lines.append(
            f"- {system_title(system)} - {rival}: hit@1 {found['difference']:+.3f} {interval} "
            f"p={found['p']:.2g}"
        )
    return lines
