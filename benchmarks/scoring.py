"""Compare scoring by FlagEmbedding, sentence-transformers and this project on the same pairs.

    dvc repro samples && python benchmarks/scoring.py [--queries 40] [--depth 24] [--turns 3]
      [--model models/base] [--whole] [--openvino .cache/openvino/bin/python]

With --openvino, the interpreter of an environment made from requirements-openvino.txt,
sentence-transformers' OpenVINO backend takes turns too, in float32 and in int8 (static quantization
with optimum-intel's defaults, calibrated with training pairs). There are two loads: one query with
100 passages, and validation questions with their first candidates, in views as the reranker reads
them (--whole: whole passages). Each turn is a process of its own and the systems take turns.
Loading is not timed, and a first call with 8 pairs comes before. The last column is the share of
queries with the first 10 passages in the order of plain transformers in float32, one pair at a time
without padding.
"""

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import turns

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

SYSTEMS = ("FlagReranker", "sentence-transformers", "this project")
OPENVINO = {
    "sentence-transformers, OpenVINO": "openvino/openvino_model.xml",
    "sentence-transformers, OpenVINO int8": "int8/openvino/openvino_model.xml",
}
ONE = 100


def loads(queries: int, depth: int, whole: bool) -> dict[str, list[list[tuple[str, str]]]]:
    """Return load -> the pairs of each of its queries."""
    from tunerank.core.files import read_jsonl
    from tunerank.data.passages import read_passages
    from tunerank.params.load import load

    params = load(ROOT / "params.yaml")
    corpus = read_passages(ROOT / "data/prepared/corpus.jsonl", params.retrieve.title)
    questions = list(read_jsonl(ROOT / "data/prepared/valid.jsonl"))[:queries]
    candidates = {
        row["id"]: row["candidates"] for row in read_jsonl(ROOT / "data/candidates/valid.jsonl")
    }

    def text(candidate: dict) -> str:
        passage = corpus[candidate["passage"]]
        return passage.view() if whole else passage.view(*candidate["views"][0])

    many = [
        [(question["question"], text(one)) for one in candidates[question["id"]][:depth]]
        for question in questions
    ]
    passages = list(corpus.values())[:ONE]
    size = None if whole else params.retrieve.shown or None
    one = [(questions[0]["question"], passage.view(0, size)) for passage in passages]
    return {
        f"one query, {len(one)} passages": [one],
        f"{len(many)} queries, {depth} passages each": many,
    }


def scorer(system: str, model: str):
    """Return a function from pairs to scores, as each library's users call it."""
    if system == "FlagReranker":
        from FlagEmbedding import FlagReranker

        return FlagReranker(
            model, use_fp16=False, devices=["cpu"], query_max_length=384, max_length=512
        ).compute_score
    if system == "sentence-transformers":
        import torch
        from sentence_transformers import CrossEncoder

        from tunerank.models.device import choose_precision

        kind = torch.bfloat16 if choose_precision("auto") == "bf16" else torch.float32
        encoder = CrossEncoder(model, max_length=512, model_kwargs={"dtype": kind}, device="cpu")
        return lambda pairs: encoder.predict(
            pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
    if system in OPENVINO:
        import torch
        from sentence_transformers import CrossEncoder

        options = {"file_name": OPENVINO[system], "export": False}
        encoder = CrossEncoder(
            model, max_length=512, backend="openvino", model_kwargs=options, device="cpu"
        )
        return lambda pairs: encoder.predict(
            pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
    if system == "this project":
        from tunerank.models.cross_encoder import CrossEncoder
        from tunerank.params.load import load
        from tunerank.training.preflight import keep_freed_memory

        keep_freed_memory()
        score = load(ROOT / "params.yaml").score
        return CrossEncoder(model, score.max_length, score.precision, score.batch_tokens).score

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    plain, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(model),
    )

    def reference(pairs):
        with torch.inference_mode():
            return [
                plain(
                    **tokenizer(
                        *pair, truncation="only_second", max_length=512, return_tensors="pt"
                    )
                ).logits.item()
                for pair in pairs
            ]

    return reference


def export(model: str, folder: Path) -> None:
    """Write the checkpoint for OpenVINO, in float32 and in int8, by the interpreter that has it."""
    from datasets import Dataset
    from optimum.intel.openvino import OVConfig, OVQuantizationConfig, OVQuantizer
    from sentence_transformers import CrossEncoder

    shutil.copytree(model, folder)
    encoder = CrossEncoder(str(folder), backend="openvino", max_length=512, device="cpu")
    encoder.save_pretrained(str(folder))
    with open(ROOT / "data/samples/train.jsonl", encoding="utf-8") as lines:
        samples = [json.loads(line) for line in itertools.islice(lines, 300)]
    queries, texts = zip(*((sample["query"], sample["pos"][0]) for sample in samples))
    calibration = Dataset.from_dict(
        dict(
            encoder.tokenizer(
                list(queries), list(texts), truncation=True, max_length=512, padding=True
            )
        )
    )
    config = OVConfig(quantization_config=OVQuantizationConfig())
    OVQuantizer.from_pretrained(encoder.transformers_model).quantize(
        calibration, save_directory=str(folder / "int8"), ov_config=config
    )


def timed(system: str, model: str, given: dict) -> dict:
    """Return load -> pairs a second, seconds, and the first 10 passages of each query."""
    score = scorer(system, model)
    result = {}
    for name, queries in given.items():
        pairs = [tuple(pair) for query in queries for pair in query]
        score(pairs[:8])
        start = time.perf_counter()
        scores = iter([float(value) for value in score(pairs)])
        seconds = time.perf_counter() - start
        tops = []
        for query in queries:
            own = [next(scores) for _ in query]
            tops.append(sorted(range(len(own)), key=lambda i: -own[i])[:10])
        result[name] = {"rate": len(pairs) / seconds, "seconds": seconds, "tops": tops}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--model", default=str(ROOT / "models/base"))
    parser.add_argument("--turn", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument(
        "--openvino", help="the interpreter of an environment from requirements-openvino.txt"
    )
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        export(options.model, options.export)
        print(json.dumps({}))
        return
    if options.turn:
        print(
            json.dumps(
                timed(
                    options.turn[0],
                    options.model,
                    json.loads(Path(options.turn[1]).read_text(encoding="utf-8")),
                )
            )
        )
        return

    from tunerank.models.device import describe_machine

    given = loads(options.queries, options.depth, options.whole)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pairs.json")
        file.write_text(json.dumps(given), encoding="utf-8")

        exported = str(Path(folder, "openvino"))

        def command(system: str) -> list[str]:
            return [
                __file__,
                "--model",
                exported if system in OPENVINO else options.model,
                "--turn",
                system,
                str(file),
            ]

        reference = turns.turn("reference", command("reference"))
        systems, pythons = SYSTEMS, {}
        if options.openvino:
            turns.turn(
                "export",
                [__file__, "--model", options.model, "--export", exported],
                options.openvino,
            )
            systems, pythons = (*SYSTEMS, *OPENVINO), dict.fromkeys(OPENVINO, options.openvino)
        found = turns.take_turns(systems, options.turns, command, pythons)
    print(json.dumps(describe_machine("auto")))
    print(f"{'whole passages' if options.whole else 'as shown'}, {options.turns} turns")
    print(
        "| load | system | pairs/s, median | each turn | ratio | seconds | same first 10 |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name in given:
        first = statistics.median(one[name]["rate"] for one in found[SYSTEMS[0]])
        for system, results in found.items():
            rates = [one[name]["rate"] for one in results]
            middle, each = statistics.median(rates), ", ".join(f"{rate:.1f}" for rate in rates)
            seconds = statistics.median(one[name]["seconds"] for one in results)
            same = statistics.fmean(
                ours == theirs
                for ours, theirs in zip(results[-1][name]["tops"], reference[name]["tops"])
            )
            print(
                f"| {name} | {system} | {middle:.1f} | {each} | {middle / first:.2f} "
                f"| {seconds:.1f} | {same:.3f} |"
            )


if __name__ == "__main__":
    main()
