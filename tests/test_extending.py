"""Test that a new loss, reader and measure work where docs/training.md says to add them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

LOSS = '''

def margin_loss(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean hinge of the positive over the best negative."""
    return torch.relu(1 + logits[:, 1:].amax(dim=1) - logits[:, 0]).mean()
'''
READER = """

from tunerank.data.readers.text import decode


def _read_tsv(path: Path) -> pd.DataFrame:
    rows = [line.split("\\t") for line in decode(path).splitlines()]
    return _to_frame(path, list(enumerate(rows, 1)))


READERS[".tsv"] = _read_tsv
"""


@pytest.fixture
def copy(tmp_path):
    """Return functions that edit a file of a copy of the library, and run code with the copy."""
    subprocess.run(["cp", "-r", ROOT / "src", tmp_path / "src"], check=True)

    def edit(name: str, old: str, new: str, appended: str = "") -> None:
        path = tmp_path / "src/tunerank" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new) + appended, encoding="utf-8")

    def run(code: str) -> object:
        program = f"import sys; sys.path.insert(0, {str(tmp_path / 'src')!r})\n{code}"
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return edit, run


def test_a_loss_is_a_function_and_a_term(copy):
    edit, run = copy
    term = "    loss = cross_entropy(logits)\n"
    edit("training/losses.py", term, f"{term}    loss = loss + margin_loss(logits)\n", LOSS)
    added = run("""
import json, math, torch
from tunerank.training.losses import group_loss
zeros = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
print(json.dumps(group_loss(zeros, None, None).item() - math.log(2)))
""")
    assert added == pytest.approx(1.0, abs=1e-6)  # the hinge loss of equal scores


def test_a_reader_is_a_function_and_an_entry(copy, tmp_path):
    edit, run = copy
    edit("data/readers/tables.py", "READERS = {", "READERS = {", READER)
    (tmp_path / "qa.tsv").write_text("question\tdoc\n甲？\t一\n", encoding="utf-8")
    rows = run("""
import json
from tunerank.data.readers.tables import find_tables, read_table
print(json.dumps(read_table(find_tables(".")[0]).to_dict("records")))
""")
    assert rows == [{"question": "甲？", "doc": "一"}]


def test_a_measure_is_an_entry(copy):
    edit, run = copy
    edit("evaluation/measures.py", '"nDCG": nDCG}', '"nDCG": nDCG, "P": ir_measures.P}')
    measured = run("""
import json
from tunerank.evaluation.measures import measure
from tunerank.commands.compare import MEASURE
found = measure({"q": {"b": 1}}, {"q": ["a", "b"]}, [1], 2)
print(json.dumps([found, bool(MEASURE.fullmatch("P@5"))]))
""")
    assert measured[0]["P@2"] == 0.5 and measured[0]["MRR@2"] == 0.5 and measured[1]


def test_the_page_names_these_places():
    page = Path(ROOT, "docs/training.md").read_text(encoding="utf-8")
    for name in ("training/losses.py", "data/readers/tables.py", "evaluation/measures.py"):
        assert name in page and (ROOT / "src/tunerank" / name).exists()
