"""Test `tunerank samples`: datasets and sentence-transformers read it, and no file is lost."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import tunerank

SAMPLES = "data/samples/train.jsonl"
PREPARED = "0123456789abcdef0123456789abcdef.dir"
ROWS = [
    {
        "id": "q1", "query": "电池保修几年？", "pos": ["电池两年。", "保修:电池两年。"],
        "neg": ["屏幕一年。", "=1+1", "整机\n一年。"],
        "pos_scores": [2, 1.5], "neg_scores": [0.25, -1.0, 0.5],
        "pos_passages": ["p1", "p7"], "neg_passages": ["p2", "p3", "p4"], "pos_weights": [2, 1],
    },
    {
        "id": "q2", "query": "Who repairs it?", "pos": ["IT 😀"], "neg": ["Nobody.", "Nobody."],
        "pos_scores": [3.0], "neg_scores": [0.0, 1e-9],
        "pos_passages": ["p1"], "neg_passages": ["p2", "p2"],
    },
]  # fmt: skip
"""The second has no weights, as where a question has one relevant passage."""


def write_run(folder: Path, rows: list, locked: str | None = None) -> Path:
    """Write samples and a dvc.lock that names them; `locked`: another md5 in it."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    content = "".join(line + "\n" for line in lines).encode()
    path = folder / SAMPLES
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    # The md5 of a folder is that of the JSON list of its files, as dvc_data.hashfile.tree has it.
    listed = [{"md5": hashlib.md5(content).hexdigest(), "relpath": "train.jsonl"}]
    md5 = locked or hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
    stage = {
        "cmd": "python src/samples.py",
        "deps": [
            {"path": "data/prepared", "hash": "md5", "md5": PREPARED, "size": 1, "nfiles": 5},
            {"path": "src/samples.py", "hash": "md5", "md5": "0" * 32, "size": 1},
        ],
        "outs": [{"path": "data/samples", "hash": "md5", "md5": md5, "size": 1, "nfiles": 1}],
    }
    lock = {"schema": "2.0", "stages": {"samples": stage}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path, ROWS)


def written(folder: Path, *options: str) -> str:
    done = tunerank("samples", "out", *options, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(folder: Path, *arguments: str) -> str:
    done = tunerank("samples", *(arguments or ["out"]), cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    line, end = done.stderr.split("\n", 1)
    assert end == "" and line.startswith("error: ")
    return line.removeprefix("error: ")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def loaded(folder: Path):
    """Return what `datasets.load_dataset` makes of out, with its own cache and without network."""
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(folder / "out"), cache_dir=str(folder / "cache"))
    assert list(found) == ["train"]
    return found["train"]


TRIPLETS = [
    ("电池保修几年？", "电池两年。", "屏幕一年。"),
    ("电池保修几年？", "保修:电池两年。", "=1+1"),
    ("电池保修几年？", "电池两年。", "整机\n一年。"),
    ("Who repairs it?", "IT 😀", "Nobody."),
    ("Who repairs it?", "IT 😀", "Nobody."),
]
LABELLED = [
    ("电池保修几年？", "电池两年。", 1),
    ("电池保修几年？", "保修:电池两年。", 1),
    ("电池保修几年？", "屏幕一年。", 0),
    ("电池保修几年？", "=1+1", 0),
    ("电池保修几年？", "整机\n一年。", 0),
    ("Who repairs it?", "IT 😀", 1),
    ("Who repairs it?", "Nobody.", 0),
    ("Who repairs it?", "Nobody.", 0),
]
NAMES = {"triplets": ["anchor", "positive", "negative"], "labelled": ["query", "passage", "label"]}


# the rows


def test_datasets_loads_the_samples_as_they_are(run):
    assert written(run) == "out: 2 rows; datasets.load_dataset('out')\n"
    rows = loaded(run)
    assert rows.column_names == list(ROWS[0])
    assert list(rows) == [ROWS[0], ROWS[1] | {"pos_weights": None}]
    schema = pq.read_schema(run / "out/train.parquet")
    texts, numbers = "list<element: string>", "list<element: double>"
    assert {field.name: str(field.type) for field in schema} == {
        "id": "string", "query": "string", "pos": texts, "neg": texts, "pos_scores": numbers,
        "neg_scores": numbers, "pos_passages": texts, "neg_passages": texts,
        "pos_weights": numbers,
    }  # fmt: skip


def test_columns_that_the_samples_lack_are_not_made_up(tmp_path):
    """The article's samples have neither ids nor scores."""
    write_run(tmp_path, [{"query": "q", "pos": ["a"], "neg": ["b"], "neg_scores": None}])
    written(tmp_path)
    assert list(loaded(tmp_path)) == [{"query": "q", "pos": ["a"], "neg": ["b"]}]


def test_a_key_that_is_no_column_is_named(tmp_path):
    write_run(tmp_path, [{"query": "q", "pos": ["a"], "neg": ["b"], "prompt": "p", "type": "x"}])
    assert written(tmp_path).splitlines()[0] == f"{SAMPLES}: left out: prompt, type"
    assert list(loaded(tmp_path)) == [{"query": "q", "pos": ["a"], "neg": ["b"]}]


@pytest.mark.parametrize("form, rows", [("triplets", TRIPLETS), ("labelled", LABELLED)])
def test_datasets_loads_the_forms_of_sentence_transformers(run, form, rows):
    assert written(run, "--form", form).startswith(f"out: {len(rows)} rows;")
    found = loaded(run)
    assert found.column_names == NAMES[form]
    assert [tuple(row.values()) for row in found] == rows


def test_every_block_is_written(tmp_path):
    """A row group has the rows of 1000 samples."""
    rows = [{"query": f"q{i}", "pos": ["a"], "neg": ["b", f"c{i}"]} for i in range(2001)]
    write_run(tmp_path, rows)
    written(tmp_path, "--form", "triplets")
    parquet = pq.ParquetFile(tmp_path / "out/train.parquet")
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    assert sizes == [2000, 2000, 2]
    table = parquet.read()
    assert table["anchor"].to_pylist() == [f"q{i}" for i in range(2001) for _ in range(2)]
    assert table["negative"].to_pylist()[1::2] == [f"c{i}" for i in range(2001)]


@pytest.mark.parametrize(
    "form, loss",
    [("triplets", "MultipleNegativesRankingLoss"), ("labelled", "BinaryCrossEntropyLoss")],
)
def test_sentence_transformers_trains_on_the_folder(run, tiny_model, form, loss):
    pytest.importorskip("datasets")
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    written(run, "--form", form)
    model = CrossEncoder(str(tiny_model), device="cpu")
    before = {name: value.clone() for name, value in model.named_parameters()}
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(run / "trained"), max_steps=2, per_device_train_batch_size=2, use_cpu=True,
        report_to="none", save_strategy="no", disable_tqdm=True, learning_rate=0.01,
    )  # fmt: skip
    trainer = CrossEncoderTrainer(
        model, arguments, train_dataset=loaded(run), loss=getattr(losses, loss)(model)
    )
    assert trainer.train().global_step == 2
    assert any(not value.equal(before[name]) for name, value in model.named_parameters())


# the card


def test_the_card_says_where_the_rows_are_from(run):
    written(run, "--form", "labelled")
    text = (run / "out/README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "train.parquet"}]}
        ],
        "task_categories": ["text-ranking"],
    }
    lock = yaml.safe_load((run / "dvc.lock").read_text(encoding="utf-8"))
    md5 = lock["stages"]["samples"]["outs"][0]["md5"]
    lines = body.splitlines()
    assert "8 rows, one row for each pair of a question and a text." in lines
    assert [line for line in lines if line.startswith("| `")] == [
        "| `query` | string | the question |",
        "| `passage` | string | a text |",
        "| `label` | int64 | 1: the text answers the question; 0: it does not |",
        f"| `data/samples` | `{md5}` |",
        f"| `data/prepared` | `{PREPARED}` |",
    ]


def test_the_hub_reads_the_card(run):
    hub = pytest.importorskip("huggingface_hub")
    written(run)
    data = hub.DatasetCard.load(run / "out/README.md").data
    assert (data.task_categories, data.language, data.license) == (["text-ranking"], None, None)


# the folder


def test_its_own_folder_is_replaced(run):
    written(run)
    first = content(run / "out")
    written(run, "--form", "labelled")
    assert [tuple(row.values()) for row in loaded(run)] == LABELLED
    written(run)
    assert content(run / "out") == first
    names = {path.name for path in run.iterdir()} - {"cache"}
    assert names == {"data", "dvc.lock", "out"}


def test_a_failure_leaves_the_former_folder(run):
    written(run)
    before = content(run / "out")
    write_run(run, [*ROWS, {"query": "q", "pos": ["a"], "neg": []}])
    assert refused(run) == (f"{SAMPLES}, line 3: 'neg' is empty; run dvc repro samples")
    assert content(run / "out") == before


def test_an_empty_folder_is_filled(run):
    (run / "out").mkdir()
    written(run)
    assert set(content(run / "out")) == {"README.md", "train.parquet"}


def not_own(name: str) -> str:
    return (
        f"out: {name} is not as tunerank samples writes it; name another folder, or move this one "
        "away"
    )


@pytest.mark.parametrize("name", ["notes.txt", "README.md", "train.parquet", ".git"])
def test_a_folder_of_somebody_else_is_refused(run, name):
    (run / "out").mkdir()
    (run / "out" / name).write_text("mine", encoding="utf-8")
    assert refused(run) == not_own(name)
    assert content(run / "out") == {name: b"mine"}


def test_a_file_beside_its_own_is_not_lost(run):
    written(run)
    (run / "out/.gitattributes").write_text("mine", encoding="utf-8")
    before = content(run / "out")
    assert refused(run) == not_own(".gitattributes")
    assert content(run / "out") == before


@pytest.mark.parametrize(
    "edit", [("\n---\n# ", "\nlicense: mit\n---\n# "), ("\n# ", "\nMy text.\n# ")]
)
def test_an_edited_card_is_not_lost(run, edit):
    written(run)
    path = run / "out/README.md"
    path.write_text(path.read_text(encoding="utf-8").replace(*edit), encoding="utf-8")
    before = content(run / "out")
    assert refused(run) == not_own("README.md")
    assert content(run / "out") == before


def test_a_file_in_its_place_is_refused(run):
    (run / "out").write_text("mine", encoding="utf-8")
    assert refused(run) == "out: is a file; name a folder"
    assert (run / "out").read_text(encoding="utf-8") == "mine"


def test_the_samples_themselves_are_not_replaced(run):
    before = content(run / "data/samples")
    assert refused(run, "data/samples").startswith("data/samples: train.jsonl is not as ")
    assert content(run / "data/samples") == before


# the input


def test_missing_samples_are_named(run):
    (run / SAMPLES).unlink()
    assert refused(run) == (
        f"{SAMPLES}: no such file; run dvc repro samples, or dvc pull data/samples"
    )
    assert not (run / "out").exists()


def test_samples_without_a_lock_are_refused(run):
    (run / "dvc.lock").unlink()
    assert refused(run) == (
        "dvc.lock: no such file; run from the repository's folder, after dvc repro"
    )


def test_a_lock_without_samples_is_refused(run):
    path = run / "dvc.lock"
    path.write_text(path.read_text(encoding="utf-8").replace("data/samples", "data/other"))
    assert refused(run) == "dvc.lock names no data/samples; run dvc repro samples"


def test_samples_of_another_run_are_refused(tmp_path):
    write_run(tmp_path, ROWS, locked="f" * 32 + ".dir")
    line = refused(tmp_path)
    assert line.startswith("data/samples is not the one of dvc.lock (md5 ")
    assert line.endswith(
        f"there {'f' * 32}.dir): dvc checkout data/samples brings that one back, dvc repro samples "
        "makes it again"
    )
    assert not (tmp_path / "out").exists()


GOOD = {"query": "q", "pos": ["a"], "neg": ["b", "c"]}


@pytest.mark.parametrize("form", ["listwise", "triplets"])
@pytest.mark.parametrize(
    "change, problem",
    [
        ({"pos": "a"}, "'pos' is not a list of texts"),
        ({"pos": []}, "'pos' is empty"),
        ({"neg": ["b", None]}, "'neg' is not a list of texts"),
        ({"neg": None}, "'neg' is not a list of texts"),
        ({"query": 1}, "'query' is not a text"),
        ({"query": ""}, "'query' is empty"),
        ({"id": 1}, "'id' is not a text"),
        ({"pos_scores": ["1.0"]}, "'pos_scores' is not a list of numbers"),
        ({"neg_scores": [True, 0.5]}, "'neg_scores' is not a list of numbers"),
        ({"neg_scores": [0.5]}, "'neg_scores' has 1 values for 2 texts"),
        ({"pos_passages": ["a", "b"]}, "'pos_passages' has 2 values for 1 texts"),
    ],
)
def test_a_broken_sample_is_named(tmp_path, form, change, problem):
    write_run(tmp_path, [GOOD, "", GOOD | change])
    assert refused(tmp_path, "out", "--form", form) == (
        f"{SAMPLES}, line 3: {problem}; run dvc repro samples"
    )
    assert not (tmp_path / "out").exists()


def test_a_line_that_is_no_json_is_named(tmp_path):
    write_run(tmp_path, [GOOD, '{"query": "q"'])
    assert refused(tmp_path).startswith(f"{SAMPLES}, line 2: not valid JSON")


def test_no_samples_are_refused(tmp_path):
    write_run(tmp_path, [])
    assert refused(tmp_path) == f"{SAMPLES}: no samples; run dvc repro samples"


def test_an_unknown_form_is_refused(run):
    done = tunerank("samples", "out", "--form", "pairs", cwd=run)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert all(f"'{form}'" in done.stderr for form in ("listwise", "triplets", "labelled"))
