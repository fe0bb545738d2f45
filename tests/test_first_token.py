import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from tunerank.models.first_token import first_token_only

pytestmark = pytest.mark.trained

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 40, "num_labels": 1, "pad_token_id": 1,
}  # fmt: skip
KINDS = [
    (BertConfig, BertForSequenceClassification),
    (RobertaConfig, RobertaForSequenceClassification),
    (XLMRobertaConfig, XLMRobertaForSequenceClassification),
]


def built(config, kind, attention="sdpa", **changes):
    torch.manual_seed(3)
    return kind._from_config(config(**SIZES | changes), attn_implementation=attention)


def inputs(padded: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(2, 50, (3, 12), generator=generator)
    if padded:
        ids[1, 9:] = ids[2, 5:] = 1
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("config, kind", KINDS)
def test_scores_and_gradients_equal_those_of_the_whole_layers(config, kind, attention, padded):
    found = []
    for only in (False, True):
        model = built(
            config, kind, attention, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        ).train()
        if only:
            model = first_token_only(model)
        logits = model(**inputs(padded)).logits
        (logits * torch.tensor([[1.0], [-2.0], [0.5]])).sum().backward()
        found.append((logits, {name: weight.grad for name, weight in model.named_parameters()}))
        assert model.base_model(**inputs(padded)).last_hidden_state.shape == (
            3,
            1 if only else 12,
            32,
        )
    (whole, gradients), (first, ours) = found
    torch.testing.assert_close(first, whole, atol=1e-6, rtol=1e-5)
    assert ours.keys() == gradients.keys()
    for name, expected in gradients.items():
        if expected is None or not expected.any():  # a bias of the keys does not change the softmax
            assert ours[name] is None or ours[name].abs().max() < 1e-7
        else:
            torch.testing.assert_close(ours[name], expected, atol=1e-6, rtol=1e-4)


def test_the_last_layer_keeps_its_dropout():
    config, kind = KINDS[2]
    model = first_token_only(
        built(
            config,
            kind,
            num_hidden_layers=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.5,
        )
    )
    model.classifier.dropout.p = 0.0
    with torch.no_grad():
        assert not torch.equal(model.train()(**inputs()).logits, model(**inputs()).logits)
        assert torch.equal(model.eval()(**inputs()).logits, model(**inputs()).logits)


def test_the_saved_model_is_unchanged(tmp_path):
    config, kind = KINDS[2]
    model = first_token_only(first_token_only(built(config, kind).eval()))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        again = kind.from_pretrained(tmp_path).eval()(**inputs()).logits
        torch.testing.assert_close(model(**inputs()).logits, again, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("change", [{}, {"is_decoder": True}])
def test_another_architecture_is_unchanged(change):
    config, kind = (
        (BertConfig, BertForSequenceClassification)
        if change
        else (ElectraConfig, ElectraForSequenceClassification)
    )
    model = first_token_only(built(config, kind, **change).eval())
    with torch.no_grad():
        assert model.base_model(**inputs()).last_hidden_state.shape == (3, 12, 32)
