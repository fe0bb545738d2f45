"""Run the recipe of a general base (experiments/general-base.sh) on a small data set.

It makes samples, the larger model, and the smaller model that learns from it.
"""

import importlib.util
import json
import lzma

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, table_rows
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tunerank.core.files import read_jsonl
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.sources.small import some_layers


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"experiments/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAMPLES, BASE = script("general_samples"), script("general_base")


@pytest.fixture(scope="module")
def slice_of(tmp_path_factory, tiny_model):
    """Return a folder, pairs and passages: twelve things in four documents.

    Each thing has its own section, a question, and the section's heading as a second query.
    """
    folder = tmp_path_factory.mktemp("general")
    pairs, passages = [], []
    for number, row in enumerate(table_rows()[::3]):
        document = f"{'春夏秋冬'[number % 4]}册"
        path = f"{document} > {row['question'][0]}"
        long = row["doc"] + "补充说明。" * 60
        passages.append({"doc": document, "title": path, "text": long})
        passages.append({"doc": document, "title": path, "text": f"{row['question'][0]}的续篇。"})
        pairs.append(
            {
                "query": row["question"],
                "pos": long,
                "title": document,
                "doc": document,
                "kind": "question",
            }
        )
        pairs.append(
            {
                "query": path[-1],
                "pos": long,
                "title": document,
                "doc": document,
                "kind": "heading",
                "path": path,
            }
        )
    for name, rows in (("pairs", pairs), ("passages", passages)):
        with lzma.open(folder / f"{name}.jsonl.xz", "wt", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    params = yaml.safe_load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
    params["retriever"]["max_length"] = params["score"]["max_length"] = 100
    params["train"] |= {"query_max_length": 16, "passage_max_length": 80}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return folder, pairs, passages


@pytest.fixture(scope="module")
def made(slice_of, tiny_model):
    folder, _, _ = slice_of
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        SAMPLES.main("pairs.jsonl.xz", "passages.jsonl.xz", str(tiny_model), "out")
    return list(read_jsonl(folder / "out/train.jsonl"))


def test_a_samples_texts_have_one_unit(slice_of, made):
    _, pairs, passages = slice_of
    assert [sample["query"] for sample in made] == [pair["query"] for pair in pairs]
    titled = 0
    for sample, pair in zip(made, pairs):
        assert (
            len(sample["pos"]) == 1 and len(sample["neg"]) == 7 and len(sample["neg_scores"]) == 7
        )
        texts = sample["pos"] + sample["neg"]
        heads = {text.startswith(("春册。", "夏册。", "秋册。", "冬册。")) for text in texts}
        assert len(heads) == 1 and not [text for text in texts if " > " in text]
        titled += heads == {True}
        sizes = {len(text) - 3 * (heads == {True}) for text in texts if "续篇" not in text}
        # Windows have one size. Whole passages are longer than any window.
        assert len(sizes) == 1 or min(sizes) > 320
    assert 0 < titled < len(made)


def test_a_text_that_may_also_answer_is_not_a_negative(slice_of, made):
    """The continuation of a pair's own section is never mined.

    It is short, so every unit contains it whole.
    """
    _, pairs, _ = slice_of
    mined = 0
    for sample, heading in zip(made, [pair for pair in pairs if "path" in pair for _ in range(2)]):
        assert not set(sample["pos"]) & set(sample["neg"])
        hard = [text for text in sample["neg"][:5] if "续篇" in text]
        mined += len(hard)
        assert not [text for text in hard if text.endswith(f"{heading['path'][-1]}的续篇。")]
    assert mined > 20  # continuations of other sections are mined


def test_vectors_are_reused(slice_of, made, tiny_model, monkeypatch):
    folder, _, _ = slice_of
    monkeypatch.chdir(folder)
    monkeypatch.setattr(SAMPLES.DenseEncoder, "encode", None)  # a second encoding fails
    SAMPLES.main("pairs.jsonl.xz", "passages.jsonl.xz", str(tiny_model), "out")
    assert list(read_jsonl(folder / "out/train.jsonl")) == made


def test_the_nearest_passages_match_a_full_sort(monkeypatch):
    monkeypatch.setattr(SAMPLES, "BLOCK", 1)
    rng = np.random.default_rng(1)
    queries, passages = (
        rng.normal(size=(5, 8)).astype(np.float32),
        rng.normal(size=(30, 8)).astype(np.float32),
    )
    for query, (found, scores) in zip(queries, SAMPLES.nearest(queries, passages, 4), strict=True):
        cosines = passages @ query
        assert found == np.argsort(-cosines)[:4].tolist() and scores == pytest.approx(
            cosines[found], abs=1e-5
        )


def test_a_smaller_model_has_some_layers_of_the_larger_and_learns_its_logits(
    slice_of, made, tiny_model, monkeypatch
):
    folder, _, _ = slice_of
    monkeypatch.chdir(folder)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    small = some_layers(model, [1])
    assert small.config.num_hidden_layers == 1 and model.config.num_hidden_layers == 2
    assert torch.equal(
        small.base_model.encoder.layer[0].output.dense.weight,
        model.base_model.encoder.layer[1].output.dense.weight,
    )
    BASE.main("out/train.jsonl", str(tiny_model), "l2", "--epochs", "0.5", "--batch-size", "4")
    before, after = load_file(tiny_model / "model.safetensors"), load_file("l2/model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    BASE.main(
        "out/train.jsonl", "l2", "l1", "--layers", "1", "--epochs", "0.5", "--batch-size", "4"
    )
    assert AutoModelForSequenceClassification.from_pretrained("l1").config.num_hidden_layers == 1
    (path,) = (folder / ".cache/general").glob("taught-*.jsonl")
    first = next(read_jsonl(path))
    scores = CrossEncoder("l2", 100, batch_tokens=2048).score(
        [(first["query"], text) for text in first["pos"] + first["neg"]]
    )
    assert first["pos_scores"] + first["neg_scores"] == pytest.approx(scores.tolist(), abs=0.05)
    # It learns on from where it was, from the same scores.
    taught = path.stat().st_mtime_ns
    BASE.main(
        "out/train.jsonl", "l2", "l1b", "--student", "l1", "--epochs", "0.5", "--batch-size", "4"
    )
    assert path.stat().st_mtime_ns == taught
    former, later = (load_file(f"{name}/model.safetensors") for name in ("l1", "l1b"))
    assert former.keys() == later.keys()
    dense = "classifier.dense.weight"
    change, whole = (later[dense] - former[dense]).norm(), former[dense].norm()
    assert 0 < change < 0.2 * whole


def test_a_smaller_model_is_of_layers_or_a_student_and_not_both(capsys):
    with pytest.raises(SystemExit):
        BASE.main("samples", "model", "target", "--epochs", "1", "--layers", "1", "--student", "l1")
    assert "argument --student: not allowed with argument --layers" in capsys.readouterr().err
