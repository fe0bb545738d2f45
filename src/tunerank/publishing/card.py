"""Write the model card of a checkpoint from the parameters and metrics of its run.

The text is in card.md.j2. Metadata and results (model-index) follow
https://huggingface.co/docs/hub/model-cards. Names from parameters or data are escaped. A path
outside the repository is cut to its last part, because the card may become public.
"""

import re
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from tunerank.evaluation.markdown import code, plain, several_names, split_name
from tunerank.evaluation.significance import best_first_stage, first_stage_title, first_stages
from tunerank.params.base import Base
from tunerank.params.load import Params
from tunerank.provenance.lock import Origin

TEMPLATE = Path(__file__).with_name("card.md.j2")
E5 = "intfloat/multilingual-e5-small"
BUNDLED_DATA = "data/raw/yunshan"


def model_card(
    repo: str,
    revision: str,
    params: Params,
    origin: Origin,
    license: str | None,
    languages: list[str],
    search: bool = False,
) -> str:
    """Return the card: Markdown after its metadata in YAML.

    Args:
        repo: ORGANISATION/NAME.
        revision: the tag or branch that the examples load.
        license: an identifier of the Hub; None stands for the base's license, if that is known.
        languages: ISO 639 codes of the training data; empty stands for those of the bundled data.
        search: the folder `search` is published too, so that the card's first example works.
    """
    license = license or base_license(params.base)
    languages = languages or (["zh"] if params.prepare.raw == BUNDLED_DATA else [])
    result, trained = origin.metrics["eval"], origin.metrics["train"]
    machine, mrr = origin.metrics["environment"], f"MRR@{params.evaluate.cutoff}"
    # No autoescape: the text is Markdown, and plain() and code() escape names for it.
    environment = jinja2.Environment(
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(code=code, counts=counts, plain=plain, public_path=public_path)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        repo=repo,
        revision=revision,
        params=params,
        origin=origin,
        license=license,
        languages=languages,
        search=search,
        result=result,
        data=origin.metrics["data"],
        trained=trained,
        metadata=metadata(repo, params, result, license, languages),
        base_name=base_name(params.base),
        has_license=base_license(params.base) is not None,
        split=split_name(result["split"]),
        measures=measure_names(params, result),
        several=several_names(result, params.evaluate.ks, params.evaluate.cutoff),
        first_stages=first_stages(result),
        best_first_stage=best_first_stage(result, mrr),
        best_title=first_stage_title(result, mrr),
        teacher=teacher_name(params),
        units=describe_units(params),
        checkpoint=describe_checkpoint(trained),
        chip=describe_chip(machine),
        packages=", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
    )


def metadata(
    repo: str, params: Params, result: dict, license: str | None, languages: list[str]
) -> str:
    """Return the YAML without its fences.

    Its results are those of whole passages, as other tools read them.

    Args:
        result: metrics/eval.json.
    """
    system = "reranker_whole" if "reranker_whole" in result["all"] else "reranker"
    name = " ".join(Path(params.prepare.raw).stem.split())
    # The Hub accepts only these characters in the id of a data set.
    dataset_id = re.sub(r"[^\w.-]+|--+|\.\.+", "-", name, flags=re.ASCII).strip("-.")
    return ModelCardData(
        base_model=params.base.repo or (E5 if is_ours(params.base) else None),
        language=languages or None,
        license=license,
        library_name="sentence-transformers",
        pipeline_tag="text-ranking",
        tags=["cross-encoder", "reranker"],
        model_name=repo.split("/")[1],
        eval_results=[
            EvalResult(
                task_type="text-ranking",
                task_name="reranking of first-stage candidates",
                dataset_type=dataset_id or "data",
                dataset_name=name,
                dataset_split=split_name(result["split"]),
                metric_type=measure.lower(),
                metric_name=measure,
                metric_value=result["all"][system][measure],
            )
            for measure in measure_names(params, result)
        ],
    ).to_yaml()


def teacher_name(params: Params) -> str:
    if params.samples.teacher != "reranker":
        return "the dense retriever" if params.retrieve.run else "the dense first stage"
    teacher = params.teacher
    return code(teacher.repo or public_path(teacher.path or "") or teacher.source)


def describe_units(params: Params) -> str:
    """Return the kinds of text in the training groups, each with its share."""
    samples, shares, size = params.samples, params.samples.units, params.retrieve.shown
    low, high = samples.window_sizes
    whole = "whole passages"
    total: dict[str, float] = {}
    for kind, share in (
        (f"views of {size} characters" if size else whole, shares.view),
        (f"windows of {low} to {high} characters", shares.window),
        (whole, shares.whole),
    ):
        total[kind] = total.get(kind, 0) + share
    every = sum(total.values())
    text = ", ".join(f"{kind} {share / every:.0%}" for kind, share in total.items() if share)
    return text + (f"; without titles {samples.untitled:.0%}" if samples.untitled else "")


def describe_checkpoint(trained: dict) -> str:
    """Return which weights were kept.

    Args:
        trained: metrics/train.json.
    """
    if "best_step" not in trained:
        return "the last; no validation questions were ranked while it trained"
    valid, merge = trained["valid"], trained.get("merge", {"chosen": 1.0, "valid": {}})
    measure, share = valid["measure"], merge["chosen"]
    text = f"step {trained['best_step']}, {share:g} of its weights and {1 - share:g} of the base's"
    if share == 0:
        text = "**the base itself**: no fine-tuned weights ranked the validation questions better"
    value = merge["valid"].get(str(share), valid["best"])
    text += f"; validation {measure} {value:.3f}, the base's {valid['base']:.3f}"
    if f"whole {measure}" in trained.get("kept", {}):
        text += ", each the mean over views and whole passages"
    return text


def describe_chip(machine: dict) -> str:
    """Return what rounding and speed depend on.

    Args:
        machine: metrics/environment.json.

    >>> machine = {"device": "cpu (x86_64)", "instructions": ["avx2", "avx512_bf16"], "threads": 2}
    >>> describe_chip(machine | {"precision": "bf16", "python": "3.11.7"})
    'cpu (x86_64) with avx2, avx512_bf16, 2 threads, bf16, Python 3.11.7'
    """
    instructions = f" with {', '.join(machine['instructions'])}" if machine["instructions"] else ""
    return (
        f"{machine['device']}{instructions}, {machine['threads']} threads, {machine['precision']}, "
        f"Python {machine['python']}"
    )


def measure_names(params: Params, result: dict) -> list[str]:
    """Return the measures of the tables; `evaluate.ks` may lack 1."""
    cutoff = params.evaluate.cutoff
    names = ("hit@1", f"MRR@{cutoff}", f"nDCG@{cutoff}")
    found = [name for name in names if name in result["all"]["reranker"]]
    return found + several_names(result, params.evaluate.ks, cutoff)


def counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} {plain(name)}" for name, number in numbers.items())


def base_name(base: Base) -> str:
    if base.source == "hub":
        return f"{code(base.repo)} at {code(base.revision)}"
    if base.source == "path":
        return f"a local checkpoint, {code(public_path(base.path))}"
    if base.source == "bundled":
        return f"{E5} by way of the training repository's bundled base (`docs/models.md` there)"
    if base.source == "small":
        return (
            f"{E5} by way of the training repository's bundled base and half of its layers, "
            "distilled from it (`docs/models.md` there)"
        )
    return f"{E5} with an untrained head"


def base_license(base: Base) -> str | None:
    """Return the license of a base that this repository contains (models/LICENSE), else None."""
    return "mit" if is_ours(base) else None


def is_ours(base: Base) -> bool:
    """Return whether a base is multilingual-e5-small or was trained from it in this repository."""
    return base.source in ("bundled", "small", "e5-small")


def public_path(path: str) -> str:
    """Return a path inside the repository unchanged, and the last part of another.

    >>> public_path("data/raw/mine.xlsx"), public_path("/home/ann/mine.xlsx"), public_path("../b")
    ('data/raw/mine.xlsx', 'mine.xlsx', 'b')
    """
    return Path(path).name if Path(path).is_absolute() or ".." in Path(path).parts else path
