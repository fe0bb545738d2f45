"""The model card of a checkpoint, from the parameters and metrics of the run that made it.

Metadata as https://huggingface.co/docs/hub/model-cards has it, results as model-index. Names that come from parameters or data
are escaped, and a path outside the repository is cut to its last part: it is nobody's business on the Hub.
"""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from reranker.evidence import FIRST_STAGES, best_first_stage
from reranker.markdown import code, plain
from reranker.params import Base, Params
from reranker.provenance import Origin

E5 = "intfloat/multilingual-e5-small"
BUNDLED_DATA = "data/raw/yunshan"


def model_card(repo: str, revision: str, params: Params, origin: Origin, license: str | None, languages: list[str]) -> str:
    """Markdown with its metadata.

    Args:
        repo: ORGANISATION/NAME; revision: what the examples load, a tag or a branch.
        license: one of the Hub's identifiers; None: the base's where that is known.
        languages: ISO 639 codes of the training data; empty: the bundled data's where it is that.
    """
    license = license or base_license(params.base)
    languages = languages or (["zh"] if params.prepare.raw == BUNDLED_DATA else [])
    found = origin.metrics["eval"]
    parts = [
        f"---\n{metadata(repo, params, found, license, languages)}\n---",
        f"# {plain(repo.split('/')[1])}",
        "A cross-encoder reranker: it reads a question and a passage together and gives one score, the higher the better the "
        f"passage answers. Fine-tuned from {base_name(params.base)} on questions about {code(where(params.prepare.raw))}.",
        results(params, found),
        usage(repo, revision, params),
        training(params, origin.metrics["data"], origin.metrics["train"]),
        limits(params, found, languages),
        provenance(params, origin, license),
    ]
    return "\n\n".join(parts) + "\n"


def metadata(repo: str, params: Params, found: dict, license: str | None, languages: list[str]) -> str:
    """YAML, without its fences, with the results of whole passages, which is how the card's snippets use the model.

    Args:
        found: metrics/eval.json.
    """
    system = "reranker_whole" if "reranker_whole" in found["all"] else "reranker"
    name = " ".join(Path(params.prepare.raw).stem.split())
    slug = re.sub(r"[^\w.-]+|--+|\.\.+", "-", name, flags=re.ASCII).strip("-.")  # what the Hub takes for a data set's id
    return ModelCardData(
        base_model={"bundled": E5, "e5-small": E5, "hub": params.base.repo}.get(params.base.source),
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
                dataset_type=slug or "data",
                dataset_name=name,
                dataset_split=split_name(found),
                metric_type=measure.lower(),
                metric_name=measure,
                metric_value=found["all"][system][measure],
            )
            for measure in measures(params, found)
        ],
    ).to_yaml()


def results(params: Params, found: dict) -> str:
    names, everything = measures(params, found), found["all"]
    first, mrr = [name for name in FIRST_STAGES if name in everything], f"MRR@{params.evaluate.cutoff}"
    best = best_first_stage(everything, mrr)
    whole = "reranker_whole" in everything

    def row(title: str, group: str, system: str) -> list[str]:
        return [title, *(f"{found[group][system][name]:.3f}" for name in names)]

    def difference(title: str, rival: str, system: str = "reranker") -> list[str]:
        cells = [found["against"]["all"][system][rival][name] for name in names]
        return [f"{titled[system]} - {title}", *(f"{c['difference']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" for c in cells)]

    systems = [(f"{name}, first stage", name) for name in first]
    systems += [("base, before fine-tuning", "base"), ("**this model**", "reranker")]
    titled = {"reranker": "this model", "reranker_whole": "this model, whole passages"}
    first_one = f"{best}, the best first stage by {mrr}"
    differences = [difference("base", "base"), difference(first_one, best)]
    if whole:
        systems += [("base, whole passages", "base_whole"), ("**this model, whole passages**", "reranker_whole")]
        differences += [
            difference("base, whole passages", "base_whole", "reranker_whole"),
            difference(first_one, best, "reranker_whole"),
        ]
    parts = [
        "## Results",
        f"{everything['questions']} {split_name(found)} questions; base and fine-tuned order the same {params.score.depth} "
        "first-stage candidates of each"
        + (f", and whole passages of {params.score.whole_depth}." if whole else ", whole passages."),
        table(["", *names], [row(title, "all", name) for title, name in systems]),
        "Mean paired differences with 95 % bootstrap intervals; one that holds 0 is no evidence of a difference.",
        table(["", *names], differences),
    ]
    if "unseen" in found and "seen" in found:
        pairs = [(group, *system) for group in ("unseen", "seen") for system in (("base", "base"), ("this model", "reranker"))]
        rows = [row(f"{group}, {found[group]['questions']} questions, {title}", group, name) for group, title, name in pairs]
        parts += ["*Seen* passages had training questions of their own, *unseen* ones had none.", table(["", *names], rows)]
    for system, fitted, start in (
        ("fused", "fusion_weights", "With the first stage's scores added to its logit"),
        ("fused_whole", "fusion_weights_whole", "On whole passages"),
    ):
        if system in everything:
            weights = " + ".join(f"{weight:g} * {name}" for name, weight in found[fitted].items())
            values = ", ".join(f"{name} {everything[system][name]:.3f}" for name in names)
            parts.append(f"{start}, `{weights}`, these together have {values}.")
    return "\n\n".join(parts)


def usage(repo: str, revision: str, params: Params) -> str:
    """Examples that run as they stand, one after the other."""
    titled = ", each after its title, as here" if params.retrieve.title else ""
    first, second = ("标题。一段文字", "标题。另一段文字") if params.retrieve.title else ("一段文字", "另一段文字")
    pairs = f'[("问题", "{first}"), ("问题", "{second}")]'
    whole = f"Give it whole passages{titled}. On the candidates of a first stage that is "
    whole += "the row **this model, whole passages**" if params.retrieve.shown else "the row **this model**"
    return f'''## How to use it

{whole} of the results.

```python
from FlagEmbedding import FlagReranker
from huggingface_hub import snapshot_download

reranker = FlagReranker(snapshot_download("{repo}", revision="{revision}"))
scores = reranker.compute_score({pairs}, max_length={params.score.max_length})
```

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("{repo}", revision="{revision}")
probabilities = model.predict({pairs})  # sigmoids of these scores: the same ranking
```

A branch or a tag can move: for a result that can be made again give `revision` the commit, 40 hexadecimal digits.

`FlagModel`, `SentenceTransformer` and other classes for embeddings load it too, and are wrong: they drop the layer that scores, \
and the vectors that they compare were never trained to be compared.

The settings that it was trained and measured with are under `reranker` in `config.json`.''' + (
        views_usage(repo, revision, params) if params.retrieve.shown else ""
    )


def views_usage(repo: str, revision: str, params: Params) -> str:
    return f'''

The row **this model** takes of a passage the best score of several views of {params.retrieve.shown} characters, those around the
windows that the first stage finds nearest to the question. Without one, take views that overlap by half:

```python
from transformers import AutoConfig

settings = AutoConfig.from_pretrained("{repo}", revision="{revision}").reranker


def views(title, text):
    size = settings["shown"]
    step = max(1, size // 2)
    before = title + "。" if title and settings["title"] else ""  # ". " after a title without Chinese characters
    return [before + text[start : start + size] for start in range(0, max(1, len(text) - size + step), step)]


pairs = [("问题", view) for view in views("标题", "一段很长的文字。" * 40)]
best = max(reranker.compute_score(pairs, max_length=settings["max_length"]))
```'''


def training(params: Params, data: dict, trained: dict) -> str:
    """`data`, `trained`: metrics/data.json and train.json."""
    samples, train = params.samples, params.train
    questions = ", ".join(f"{count} {name}" for name, count in data["questions"].items())
    mined = f"{samples.negatives} a question, {samples.random_negatives} of them random, the others from ranks "
    mined += f"{samples.skip_top + 1} to {samples.skip_top + samples.window} of the first stage"
    teacher = code(params.teacher.repo or where(params.teacher.path or "") or params.teacher.source)
    taught = f"weight {train.distill_weight:g}, temperature {train.distill_temperature:g}, from "
    taught += teacher if samples.teacher == "reranker" else "the dense first stage"
    rows = [
        ("base", base_name(params.base)),
        ("data", f"{code(where(params.prepare.raw))}: {data['passages']} passages; questions: {questions}"),
        ("dropped rows", ", ".join(f"{count} {plain(name)}" for name, count in data["dropped"].items()) or "none"),
        ("second pre-training", f"on the passages, epochs: {params.pretrain.epochs:g}" if params.pretrain.epochs else "none"),
        ("positives", f"{samples.pair} (`samples.pair`)"),
        ("shown", units(params)),
        ("negatives", mined if samples.strategy == "hard" else "other questions' positives (`samples.strategy: all`)"),
        ("distillation", taught if train.distill_weight else "none"),
        ("steps", f"{trained['optimizer_steps']}, samples: {trained['samples']}, epochs: {train.epochs:g}"),
        ("batch", f"{train.batch_size} questions of {train.group_size} passages, accumulation: {train.accumulation}"),
        ("optimizer", f"AdamW, learning rate {train.lr:g}, {train.scheduler}, warm-up {train.warmup_ratio:g}"),
        ("tokens", f"query {train.query_max_length}, passage {train.passage_max_length}, at most"),
        ("word embeddings", "frozen" if train.freeze_embeddings else "trained"),
        ("seed", str(params.seed)),
        ("checkpoint", chosen(trained)),
    ]
    return f"## Training\n\n{table(['', ''], rows)}"


def units(params: Params) -> str:
    """What the training groups show of their passages, each kind with its share."""
    samples, shares = params.samples, params.samples.units
    views = f"views of {params.retrieve.shown} characters" if params.retrieve.shown else "whole passages"
    low, high = samples.window_sizes
    kinds = [(shares.view, views), (shares.window, f"windows of {low} to {high} characters"), (shares.whole, "whole passages")]
    total: dict[str, float] = {}
    for share, kind in kinds:
        total[kind] = total.get(kind, 0) + share
    found = ", ".join(f"{kind} {share / sum(total.values()):.0%}" for kind, share in total.items() if share)
    return found + (f"; without titles {samples.untitled:.0%}" if samples.untitled else "")


def chosen(trained: dict) -> str:
    """Which checkpoint was kept, as metrics/train.json has it."""
    if "best_step" not in trained:
        return "the last; no validation questions were ranked while it trained"
    valid, merge = trained["valid"], trained.get("merge", {"chosen": 1.0, "valid": {}})
    share = merge["chosen"]
    text = f"step {trained['best_step']}, {share:g} of its weights and {1 - share:g} of the base's"
    if share == 0:
        text = "**the base itself**: no fine-tuned weights ranked the validation questions better"
    value = merge["valid"].get(str(share), valid["best"])
    mean = ", each the mean over views and whole passages" if f"whole {valid['measure']}" in trained.get("kept", {}) else ""
    return f"{text}; validation {valid['measure']} {value:.3f}, the base's {valid['base']:.3f}{mean}"


def limits(params: Params, found: dict, languages: list[str]) -> str:
    spoken = f"its training data is in {', '.join(map(plain, languages))}" if languages else "that of its training data"
    if params.base.source == "bundled":
        spoken += ", and its base kept the vocabulary of Chinese and English alone"
    unseen, seen = (found.get(group, {}).get("questions", 0) for group in ("unseen", "seen"))
    points = [
        "For ordering the candidates that a first stage finds in the documents it was tuned for, or in ones much like them. What "
        "the first stage misses stays missed.",
        "The figures are of these documents and these candidates: they predict no score on others. They say nothing of speed, of "
        "what a reader or a language model makes of the passages, or of fairness.",
        f"Of the {split_name(found)} questions {unseen} are about passages without training questions, {seen} about passages "
        "with some. Expect of new documents no more than *unseen* shows.",
        "One passage counts as right for each question; another that answers as well counts as wrong.",
        f"One training run, seed {params.seed}; another seed gives other figures.",
        f"Language: {spoken}. It was measured in no other.",
        "Scores order the passages of one question. They are not calibrated: a threshold needs data of your own.",
    ]
    if found["split"] == "valid":
        warning = "The figures are of the validation questions, by which the checkpoint was chosen: they are too good."
        points.insert(0, f"**{warning}**")
    return "\n".join(["## Intended use and limits", "", *(f"- {point}" for point in points)])


def provenance(params: Params, origin: Origin, license: str | None) -> str:
    machine = origin.metrics["environment"]
    licence = code(license) if license else "not stated: ask for that of the base and of the data"
    if base_license(params.base):
        licence += f"; that of {E5}, MIT, is in `LICENSE`"
    rows = [
        ("Git commit of the training repository", code(origin.commit) + (", with uncommitted changes" if origin.dirty else "")),
        ("md5 of the checkpoint in its `dvc.lock`", code(origin.md5)),
        ("scored on", plain(chip(machine))),
        ("packages", plain(", ".join(f"{name} {version}" for name, version in machine["packages"].items()))),
        ("licence", licence),
    ]
    again = (
        "That commit and `dvc repro` make it again. Its `dvc.lock` has the md5 of every input and of this folder without what "
        "publishing adds (`README.md`, `LICENSE`, `.gitattributes`)."
    )
    return f"## How it was made\n\n{table(['', ''], rows)}\n\n{again}"


def chip(machine: dict) -> str:
    """A machine by what rounding and speed depend on.

    >>> chip({"device": "cpu (x86_64)", "instructions": ["avx2", "avx512_bf16"], "threads": 2, "precision": "bf16", "python": "3.11.7"})
    'cpu (x86_64) with avx2, avx512_bf16, 2 threads, bf16, Python 3.11.7'
    """
    instructions = f" with {', '.join(machine['instructions'])}" if machine["instructions"] else ""
    return f"{machine['device']}{instructions}, {machine['threads']} threads, {machine['precision']}, Python {machine['python']}"


def measures(params: Params, found: dict) -> list[str]:
    wanted = ("hit@1", f"MRR@{params.evaluate.cutoff}", f"nDCG@{params.evaluate.cutoff}")
    return [name for name in wanted if name in found["all"]["reranker"]]  # evaluate.ks may lack 1


def split_name(found: dict) -> str:
    return "validation" if found["split"] == "valid" else found["split"]


def base_name(base: Base) -> str:
    if base.source == "hub":
        return f"{code(base.repo)} at {code(base.revision)}"
    if base.source == "path":
        return f"a local checkpoint, {code(where(base.path))}"
    if base.source == "bundled":
        return f"{E5} by way of the training repository's bundled base (`docs/bundled-base.md` there)"
    return f"{E5} with an untrained head"


def base_license(base: Base) -> str | None:
    """The base's licence where this repository knows it (models/LICENSE)."""
    return "mit" if base.source in ("bundled", "e5-small") else None


def where(path: str) -> str:
    """A path inside the repository as it is, of another its last part.

    >>> where("data/raw/mine.xlsx"), where("/home/ann/secret/mine.xlsx"), where("../mine")
    ('data/raw/mine.xlsx', 'mine.xlsx', 'mine')
    """
    return Path(path).name if Path(path).is_absolute() or ".." in Path(path).parts else path


def table(header: list[str], rows: list) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
