"""Test that a checkpoint is known before it is used: what it is, and what it can read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, dvc, edit, embedder_of, error_of, tunerank
from safetensors.torch import load_file, save_file
from test_security import fetch_stage
from transformers import AutoConfig, AutoModel, AutoTokenizer, logging

from tunerank.models.checkpoint import load_classifier
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.models.identify import identify, pooling_of
from tunerank.models.readable import most_tokens, unknown_share, warn_unknown
from tunerank.params.base import Loader
from tunerank.ranker import Ranker
from tunerank.retrieval.retrievers import DenseEncoder

logging.set_verbosity_error()
KOREAN = ["보증 기간은 몇 년입니까?", "배터리는 이 년 보증합니다."]
TEXT = "红色的车停在街上" * 60
"""More tokens than the tiny model has positions for."""


@pytest.fixture
def checkpoint(tiny_model, tmp_path) -> Path:
    """Return a copy of the tiny reranker, in a folder `mine`."""
    return Path(shutil.copytree(tiny_model, tmp_path / "mine"))


@pytest.fixture
def embedder(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(embedder_of(tiny_model), tmp_path / "mine"))


@pytest.fixture
def repository(project, tmp_path) -> Path:
    """Return a copy of the tiny project after its run, as a clone of its own."""
    return Path(shutil.copytree(project, tmp_path / "repo", symlinks=True))


def refused_as(folder: Path, role: str, **config) -> str:
    """Return why a checkpoint cannot have a role, with changes of its config.json."""
    edit(folder / "config.json", **config)
    return error_of(identify, folder, "mine", role)


def parameters(tmp_path: Path, monkeypatch, **groups: dict) -> None:
    """Write tests/params.yaml with changes into an empty folder, and go there."""
    values = yaml.load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), Loader)
    for group, changes in groups.items():
        values[group] |= changes
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def fetch_refuses() -> str:
    names = ("bundled", "base", "retriever", "teacher", "compare")
    return error_of(fetch_stage, *(f"models/{name}" for name in names))


# what it is


def test_a_reranker_a_base_and_an_embedding_model_are_told_apart(tiny_model):
    embedder = embedder_of(tiny_model)
    assert identify(tiny_model, "mine", "reranker").has_head
    assert identify(tiny_model, "mine", "base").has_head
    assert not identify(embedder, "mine", "base").has_head
    assert not identify(embedder, "mine", "retriever").has_head
    assert error_of(identify, tiny_model, "mine", "retriever") == (
        "mine: a classifier (XLMRobertaForSequenceClassification), which has no embeddings to "
        "retrieve with; give an embedding model"
    )
    assert error_of(identify, embedder, "mine", "reranker") == (
        "mine: no reranker, its config.json has the architecture XLMRobertaModel without a "
        "classification head; give a cross-encoder, or fine-tune this one as base"
    )


@pytest.mark.parametrize("role", ["reranker", "base"])
def test_a_classifier_of_several_labels_is_refused(checkpoint, role):
    three = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    message = refused_as(checkpoint, role, **three)
    assert message == "mine: a classifier of 3 labels; a reranker has one, its score"
    # transformers' default, where a config names no labels
    message = refused_as(checkpoint, role, id2label=None, label2id=None)
    assert message == "mine: a classifier of 2 labels; a reranker has one, its score"


@pytest.mark.parametrize("role", ["reranker", "base", "retriever"])
def test_a_decoder_is_refused(checkpoint, role):
    message = refused_as(
        checkpoint, role, model_type="qwen3", architectures=["Qwen3ForSequenceClassification"]
    )
    assert message.startswith("mine: a decoder (model_type 'qwen3'), which needs a prompt")


def test_a_config_that_its_model_refuses_is_one_line(checkpoint):
    message = refused_as(checkpoint, "reranker", hidden_size="32 or so")
    assert message.startswith("mine: config.json cannot be read (")


def test_an_embedding_model_with_a_layer_that_is_not_computed_is_refused(embedder):
    layers = [
        {"idx": 0, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "type": "sentence_transformers.models.Pooling"},
    ]
    known = [*layers, {"idx": 2, "type": "sentence_transformers.models.Normalize"}]
    (embedder / "modules.json").write_text(json.dumps(known))
    assert identify(embedder, "mine", "retriever").tokens == 128
    (embedder / "modules.json").write_text(
        json.dumps([*layers, {"idx": 2, "type": "sentence_transformers.models.Dense"}])
    )
    assert error_of(identify, embedder, "mine", "retriever") == (
        "mine: modules.json has the layer Dense, which is not computed here; give an embedding "
        "model of Transformer, Pooling and Normalize"
    )
    (embedder / "modules.json").write_text("{}")
    assert error_of(identify, embedder, "mine", "retriever") == (
        "mine: modules.json is not a JSON array"
    )


@pytest.mark.parametrize(
    "config, pooling",
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "cls"}, "cls"),
        ({}, None),
    ],
)
def test_the_pooling_of_an_embedding_model_is_read(embedder, config, pooling):
    (embedder / "1_Pooling").mkdir()
    (embedder / "1_Pooling/config.json").write_text("{}")
    edit(embedder / "1_Pooling/config.json", word_embedding_dimension=32, **config)
    assert pooling_of(embedder, "mine") == pooling


def test_fetch_refuses_another_pooling_than_the_embedding_model_has(
    tiny_model, embedder, tmp_path, monkeypatch
):
    (embedder / "1_Pooling").mkdir()
    (embedder / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
    path = {"source": "path", "path": str(embedder)}
    parameters(tmp_path, monkeypatch, base={"source": "path", "path": str(tiny_model)},
               retriever=path)  # fmt: skip
    assert fetch_refuses() == (
        f"retriever.pooling is mean, but retriever: {embedder} pools by cls; set retriever.pooling "
        "to cls"
    )


@pytest.mark.parametrize("group", ["base", "teacher"])
def test_fetch_refuses_a_classifier_of_three_labels(
    tiny_model, checkpoint, tmp_path, monkeypatch, group
):
    edit(checkpoint / "config.json", id2label={"0": "a", "1": "b", "2": "c"})
    sources = {name: {"source": "path", "path": str(tiny_model)} for name in ("base", "teacher")}
    sources[group]["path"] = str(checkpoint)
    retriever = {"source": "path", "path": str(embedder_of(tiny_model))}
    samples = {"teacher": "reranker"}
    parameters(tmp_path, monkeypatch, **sources, retriever=retriever, samples=samples)
    assert fetch_refuses() == (
        f"{group}: {checkpoint}: a classifier of 3 labels; a reranker has one, its score"
    )


# weights that are missing


def drop_weights(folder: Path, part: str) -> None:
    """Remove the weights that have `part` in their name."""
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if part not in name}
    save_file(kept, path, {"format": "pt"})


@pytest.mark.parametrize(
    "part, first",
    [
        ("classifier.", "4 of the weights that its config.json describes are missing, such as "
         "classifier.dense.bias"),
        ("layer.1.attention.self.query", "2 of the weights that its config.json describes are "
         "missing, such as roberta.encoder.layer.1.attention.self.query.bias"),
    ],
)  # fmt: skip
def test_weights_that_would_be_drawn_at_random_are_refused(checkpoint, part, first):
    drop_weights(checkpoint, part)
    assert (
        error_of(load_classifier, checkpoint) == f"{checkpoint}: {first}; get the whole checkpoint"
    )
    assert error_of(Ranker, checkpoint) == f"{checkpoint}: {first}; get the whole checkpoint"


def test_a_base_may_lack_its_head_and_nothing_else(embedder, tmp_path, monkeypatch):
    drop_weights(embedder, "classifier.")
    source = {"source": "path", "path": str(embedder)}
    parameters(tmp_path, monkeypatch, base=source, retriever=source)
    fetch_stage(*(f"models/{name}" for name in (
        "bundled", "base", "retriever", "teacher", "compare")))  # fmt: skip
    assert identify(tmp_path / "models/base", "base", "reranker").has_head
    drop_weights(embedder, "layer.0.")
    assert "missing, such as roberta.encoder.layer.0." in fetch_refuses()


def test_a_retriever_without_some_of_its_weights_is_refused(embedder, tmp_path, monkeypatch):
    parameters(tmp_path, monkeypatch)
    drop_weights(embedder, "layer.1.output")
    settings = yaml.load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"), Loader)
    from tunerank.params.base import Retriever

    message = error_of(DenseEncoder, str(embedder), Retriever(**settings["retriever"]))
    assert "4 of the weights that its config.json describes are missing" in message


# the tokens that it can read


SMALL = {
    "vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8, "max_position_embeddings": 20, "pad_token_id": 1, "type_vocab_size": 1,
    "embedding_size": 8, "dim": 8, "hidden_dim": 8, "n_layers": 1, "n_heads": 2, "d_model": 8,
    "entity_vocab_size": 4, "entity_emb_size": 8, "attention_window": 4, "languages": ["en_XX"],
    "default_language": "en_XX",
}  # fmt: skip
TAUGHT = [
    "albert", "bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie", "ibert",
    "mpnet", "nystromformer", "roberta", "roberta-prelayernorm", "roformer", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
]  # fmt: skip
"""Model types with a vector for each position."""


@pytest.mark.parametrize(
    "kind, pad", [(kind, pad) for kind in TAUGHT for pad in (0, 1) if pad or kind != "mpnet"]
)  # MPNet's padding is always 1.
def test_a_model_reads_as_many_tokens_as_is_said_and_no_more(kind, pad):
    config = AutoConfig.for_model(kind, **(SMALL | {"pad_token_id": pad}))
    model, tokens = AutoModel.from_config(config).eval(), most_tokens(config)
    assert tokens in (20, 20 - pad - 1)
    with torch.inference_mode():
        model(input_ids=torch.full((1, tokens), 5))
        if kind != "roformer":  # its positions are computed, so that no table ends
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, tokens + 1), 5))


@pytest.mark.parametrize("kind", ["t5", "xlnet"])
def test_a_model_without_positions_reads_any_number_of_tokens(kind):
    assert most_tokens(AutoConfig.for_model(kind)) is None


@pytest.mark.parametrize(
    "groups, message",
    [
        ({"score": {"max_length": 129}}, "score.max_length is 129, but base: {tiny} reads at most "
         "128 tokens; set score.max_length to 128 or less"),
        ({"train": {"passage_max_length": 100}}, "train.query_max_length + train.passage_max_length"
         " is 132, but base: {tiny} reads at most 128 tokens; set train.query_max_length + "
         "train.passage_max_length to 128 or less"),
        ({"retriever": {"max_length": 512}}, "retriever.max_length is 512, but retriever: "
         "{tiny}-embedder reads at most 128 tokens; set retriever.max_length to 128 or less"),
    ],
)  # fmt: skip
def test_fetch_refuses_lengths_that_a_model_cannot_read(
    tiny_model, tmp_path, monkeypatch, groups, message
):
    groups = {key: dict(values) for key, values in groups.items()}
    groups["base"] = {"source": "path", "path": str(tiny_model)}
    embedder = {"source": "path", "path": str(embedder_of(tiny_model))}
    groups["retriever"] = embedder | groups.get("retriever", {})
    parameters(tmp_path, monkeypatch, **groups)
    assert fetch_refuses() == message.replace("{tiny}", str(tiny_model))


def test_stages_that_load_a_model_refuse_such_lengths_too(tiny_model):
    assert error_of(CrossEncoder, tiny_model, 129) == (
        f"score.max_length is 129, but {tiny_model} reads at most 128 tokens; set score.max_length "
        "to 128 or less"
    )


def test_an_experiment_with_too_long_pairs_names_the_parameter(repository):
    """`fetch` does not run again: the first stage that loads the model refuses the length."""
    longer = ("-S", "score.max_length=512", "-S", "retrieve.shown=0")
    said = dvc("exp", "run", *longer, cwd=repository, fails=True)
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [
        "error: score.max_length is 512, but models/base reads at most 128 tokens; set "
        "score.max_length to 128 or less"
    ]
    assert "Traceback" not in said


def test_rank_cuts_texts_to_what_the_model_can_read(tiny_model, tmp_path):
    ranker = Ranker(tiny_model, "fp32")
    assert ranker.encoder.max_length == 128
    (one,) = ranker.rank("红色的车", [TEXT])
    ids = ranker.encoder.tokenizer("红色的车", TEXT, truncation="only_second", max_length=128)
    model = ranker.encoder.model
    with torch.inference_mode():
        logit = model(input_ids=torch.tensor([ids["input_ids"]])).logits.item()
    assert one.logit == pytest.approx(logit, abs=1e-5)
    (tmp_path / "long.txt").write_text(TEXT, encoding="utf-8")
    done = tunerank("rank", str(tiny_model), "红色的车", str(tmp_path / "long.txt"), cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1


# the languages that it can read


@pytest.fixture(scope="module")
def bundled():
    return AutoTokenizer.from_pretrained(ROOT / "models/bundled")


@pytest.mark.parametrize(
    "texts, share",
    [
        (["电池保修几年？", "整机保修一年，电池两年。"], 0.0),
        (["How long is the battery's warranty?"], 0.0),
        ([], 0.0),
    ],
)
def test_text_in_the_base_s_languages_has_no_unknown_tokens(bundled, texts, share):
    assert unknown_share(bundled, texts) == share


def test_korean_is_half_unknown_to_the_bundled_base(bundled):
    assert 0.3 < unknown_share(bundled, KOREAN) < 0.6
    assert unknown_share(bundled, ["电池保修几年？"] * 1000 + KOREAN) < 0.01


def test_the_share_is_the_unknown_ids_among_all_ids(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer("红色的韩车", add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.unk_token_id) == 1
    assert unknown_share(tokenizer, ["红色的韩车"]) == 1 / len(ids)


def test_a_warning_says_the_share_and_what_to_do(bundled, capsys):
    warn_unknown(bundled, "models/base", ["电池保修几年？"], "another base")
    assert capsys.readouterr().err == ""
    warn_unknown(bundled, "models/base", KOREAN, "another base (base.source)")
    (line,) = capsys.readouterr().err.splitlines()
    share = f"{unknown_share(bundled, KOREAN):.0%}"
    assert line == (
        f"WARNING: models/base does not know {share} of the tokens of these texts, and ranks "
        "different texts alike; use another base (base.source) for their language, see "
        "docs/models.md"
    )


def test_rank_warns_of_a_language_that_the_model_cannot_read(tiny_model, tmp_path):
    (tmp_path / "korean.txt").write_text("\n".join(KOREAN), encoding="utf-8")
    (tmp_path / "chinese.txt").write_text("红色的车\n", encoding="utf-8")
    warned, fine = (
        tunerank("rank", str(tiny_model), query, str(tmp_path / name), cwd=tmp_path)
        for query, name in ((KOREAN[0], "korean.txt"), ("车的价格", "chinese.txt"))
    )
    assert f"WARNING: {tiny_model} does not know " in warned.stderr and warned.returncode == 0
    assert "WARNING" not in fine.stderr and fine.returncode == 0


def test_the_stages_that_retrieve_and_score_warn(repository):
    """The tiny vocabulary has the characters of its table alone."""
    table = repository / "data/raw/tiny.csv"
    korean = {ord(old): ord("가") + number for number, old in enumerate("的说明这件是色放在柜")}
    table.write_text(table.read_text(encoding="utf-8").translate(korean), encoding="utf-8")
    said = dvc("repro", cwd=repository).splitlines()
    warned = [line.split()[1] for line in said if line.startswith("WARNING: models/")]
    assert warned == ["models/retriever", "models/base", "models/reranker"]


# DVC's links


@pytest.mark.parametrize("kind", ["symlink", pytest.param("hardlink", marks=pytest.mark.slow)])
def test_a_run_on_links_to_a_shared_cache(repository, tmp_path, kind):
    """With `cache.type symlink` DVC's own links lead out of the folder, and of the repository."""
    shutil.move(repository / ".dvc/cache", tmp_path / "shared")
    dvc("config", "cache.type", kind, cwd=repository)
    dvc("cache", "dir", str(tmp_path / "shared"), cwd=repository)
    dvc("checkout", "--relink", cwd=repository)
    model = repository / "models/reranker/model.safetensors"
    assert model.is_symlink() == (kind == "symlink")
    dvc("repro", "--force", cwd=repository)
    assert model.is_symlink() == (kind == "symlink")
    assert "Data and pipelines are up to date." in dvc("status", cwd=repository)
    done = tunerank("rank", "models/reranker", "红色的车", "data/raw/tiny.csv", cwd=repository)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 10


def test_another_link_than_dvc_s_own_is_refused(repository, tmp_path):
    """A link to a file that is named like an object of a cache is one too."""
    model = repository / "models/reranker"
    for target in (ROOT / "README.md", tmp_path / "cache/ab" / ("0" * 30)):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        (model / "vocab.txt").symlink_to(target)
        assert error_of(Ranker, model) == (
            f"{model}: vocab.txt is a link out of that folder, to {target}; put the file itself "
            "there"
        )
        (model / "vocab.txt").unlink()
