"""Text from data, parameters or other revisions, of which Markdown makes nothing: for the model card and pull requests."""

import re


def plain(text: str) -> str:
    r"""Text of which Markdown, HTML and the Hub's formulas make nothing.

    >>> plain("a|b <i>*c*</i>\n[d](e)")
    'a\\|b \\<i\\>\\*c\\*\\</i\\> \\[d\\](e)'
    """
    return re.sub(r"([\\`*_\[\]<>|#~$&!])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    r"""A code span, also in a table's cell, which a bar would end (https://github.github.com/gfm/#example-200).

    >>> print(code("a|b"), code("x`y"))
    `a\|b` `` x`y ``
    """
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"
