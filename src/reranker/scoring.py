"""A cross-encoder's scores for (query, passage) pairs, and what the hardware makes of them."""

import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reranker.errors import InputError
from reranker.first_token import first_token_only
from reranker.passages import Passage
from reranker.safe_checkpoint import refuse_unsafe


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: str) -> str:
    """`auto` -> bf16 where the hardware multiplies it natively (AMX, Ampere or later), fp16 on older GPUs, else fp32.

    bf16 is emulated on a CPU without AMX, several times slower than fp32; fp16 needs CUDA.
    """
    cuda = torch.cuda.is_available()
    if wanted == "fp16" and not cuda:
        raise InputError("precision fp16 needs a CUDA device; set it to auto, bf16 or fp32")
    if wanted != "auto":
        return wanted
    if cuda:
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def describe_machine(precision: str) -> dict:
    """What a result may depend on beside code, data and parameters; no times and no host names."""
    names = ("torch", "transformers", "FlagEmbedding", "tokenizers", "numpy", "bm25s", "jieba")
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in names},
    }


def shown(
    questions: Sequence[dict],
    candidates: Mapping[str, Sequence[dict]],
    corpus: Mapping[str, Passage],
    chosen: Callable[[Sequence[dict]], Iterable[str]],
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What a reranker reads of each question's chosen candidates, view by view.

    Args:
        candidates: question id -> as `Retrieval.candidates` gives them; chosen: of one question's candidates, the passages.

    Returns:
        (question id, passage id) and (query, text) of every view.

    Raises:
        InputError: a candidate is no passage of this corpus.
    """
    keys, pairs = [], []
    for question in questions:
        views = {candidate["passage"]: candidate["views"] for candidate in candidates[question["id"]]}
        for passage in chosen(candidates[question["id"]]):
            if passage not in corpus:
                raise InputError(
                    f"candidate {passage!r} of {question['id']!r} is not in corpus.jsonl; run dvc repro retrieve --force"
                )
            keys += [(question["id"], passage)] * len(views[passage])
            pairs += [(question["question"], corpus[passage].view(*view)) for view in views[passage]]
    return keys, pairs


def by_passage(keys: Sequence[tuple[str, str]], scores: Sequence[float]) -> dict[str, dict[str, float]]:
    """question id -> passage -> the score of its best view, in the order of `keys`: MaxP (Dai and Callan, "Deeper Text
    Understanding for IR with Contextual Neural Language Modeling", SIGIR 2019, arXiv:1905.09217).

    >>> by_passage([("q", "a"), ("q", "b"), ("q", "a")], [-1.0, 0.5, 2.0])
    {'q': {'a': 2.0, 'b': 0.5}}
    """
    best: dict[str, dict[str, float]] = {}
    for (question, passage), score in zip(keys, scores, strict=True):
        found = best.setdefault(question, {})
        found[passage] = max(found.get(passage, -math.inf), float(score))
    return best


class CrossEncoder:
    """A sequence classifier with one label, read as a relevance score (a raw logit)."""

    def __init__(self, folder: str | Path, max_length: int = 512, precision: str = "auto", batch_tokens: int = 8192):
        dtype = DTYPES[choose_precision(precision)]
        refuse_unsafe(Path(folder), str(folder))
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._hold(model, AutoTokenizer.from_pretrained(folder), max_length, precision, batch_tokens)

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, precision: str, batch_tokens: int):
        """A model in memory, where it is; float32 weights are multiplied in `precision` by autocast."""
        encoder = cls.__new__(cls)
        encoder._hold(model, tokenizer, max_length, precision, batch_tokens)
        return encoder

    def _hold(self, model, tokenizer, max_length, precision, batch_tokens):
        self.model, self.tokenizer = first_token_only(model.eval()), tokenizer
        self.max_length, self.batch_tokens = max_length, batch_tokens
        self.device, self.precision = model.device, choose_precision(precision)

    def score(self, pairs: Sequence[tuple[str, str]], what: str = "pairs") -> np.ndarray:
        """Score each distinct pair once, longest first, in batches under a budget of tokens.

        Returns:
            float32 of shape (len(pairs),): logits, in the order given.
        """
        distinct = list(dict.fromkeys(pairs))
        ids = self._token_ids(distinct)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        scores: dict[tuple[str, str], float] = {}
        with tqdm(total=len(distinct), desc=f"score {what}", unit="pair", smoothing=0.05) as bar:
            at = 0
            while at < len(order):
                batch = order[at : at + max(1, self.batch_tokens // len(ids[order[at]]))]
                scores.update(zip((distinct[i] for i in batch), self._logits([ids[i] for i in batch])))
                at += len(batch)
                bar.update(len(batch))
        return np.array([scores[pair] for pair in pairs], np.float32)

    def _token_ids(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Ids of <s> query </s></s> passage </s>; a query has at most 3/4 of max_length (as in FlagReranker), the passage
        gives way to the rest."""
        limit = self.max_length * 3 // 4
        shortened = {}
        for query in {query for query, _ in pairs if len(query) > limit // 4}:
            encoded = self.tokenizer(query, add_special_tokens=False, return_offsets_mapping=True)
            if len(encoded["input_ids"]) > limit:
                shortened[query] = query[: encoded["offset_mapping"][limit - 1][1]]
        ids = []
        for start in range(0, len(pairs), 10_000):
            queries, passages = zip(*pairs[start : start + 10_000])
            queries = [shortened.get(query, query) for query in queries]
            ids += self.tokenizer(queries, list(passages), truncation="only_second", max_length=self.max_length)["input_ids"]
        return ids

    @torch.inference_mode()
    def _logits(self, ids: list[list[int]]) -> list[float]:
        inputs = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=self.model.dtype != dtype):
            return self.model(**inputs).logits.view(-1).float().cpu().tolist()
