"""Open what a searcher needs: a repository after a run, or what `tunerank export` wrote."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from tunerank.core.errors import InputError
from tunerank.core.files import file_digest
from tunerank.models.device import DTYPES, choose_precision
from tunerank.params.base import Loader, Retriever
from tunerank.params.data import Retrieve
from tunerank.params.load import Params, Score, load
from tunerank.retrieval.retrievers import DenseEncoder
from tunerank.searching.corpus import DAMAGED, Corpus, load_corpus, read_texts
from tunerank.searching.first_stage import encoder_of
from tunerank.searching.kept import kept_corpus
from tunerank.searching.systems import known_systems, weights_of
from tunerank.searching.weights import CHECKPOINT, EXPORTED

FORMAT = 1
"""Of search.json and of what lies beside it."""

CORPUS, EVALUATION = "data/prepared/corpus.jsonl", "metrics/eval.json"
RERANKER, RETRIEVER = "models/reranker", "models/retriever"
"""Files and folders of a repository."""

MEASURED = (RERANKER, "data/scores", "data/validation")
"""What the stages score and evaluate must have seen as it is."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

SMALL = 1 << 20
"""Files up to this size are compared by content at each start, larger ones by size."""


@dataclass(frozen=True)
class Settings:
    """The parameters of a search, in place of `Params` where a stage's code takes them."""

    retriever: Retriever
    retrieve: Retrieve
    score: Score


@dataclass(frozen=True)
class Opened:
    """weights: way -> of `fused_names`; systems: in the order of metrics/eval.json; rerankers: name
    -> folder, the fine-tuned one is the last; encoder: loads the dense retriever on first use."""

    settings: Settings
    weights: dict[str, list[float]]
    systems: tuple[str, ...]
    rerankers: dict[str, Path]
    encoder: Callable[[], DenseEncoder]
    corpus: Corpus


def open_source(source: str | Path, revision: str | None, precision: str) -> Opened:
    """Open a folder, or a repository of the Hub.

    Raises:
        InputError: there is neither.
    """
    folder = Path(source)
    if revision is None and (folder / EXPORTED).is_file():
        return open_export(folder, precision)
    if revision is None and folder.is_dir():
        return open_repository(folder, precision)
    if not HUB_NAME.fullmatch(str(source)):
        raise InputError(
            f"{source}: no such folder; give a repository after dvc repro, a folder of tunerank "
            "export, or ORGANISATION/NAME of the Hub with a revision"
        )
    from tunerank.searching.hub import downloaded

    return open_export(downloaded(str(source), revision), precision)


def open_repository(root: Path, precision: str = "auto") -> Opened:
    """Open a repository as `dvc repro` left it.

    Raises:
        InputError: something is missing, or params.yaml has other values than the run.
    """
    needed = [EVALUATION, CORPUS, f"{RERANKER}/config.json"]
    params = load(root / "params.yaml")
    if params.retrieve.dense:
        needed.append(f"{RETRIEVER}/config.json")
    if missing := [name for name in needed if not (root / name).is_file()]:
        raise InputError(f"{root / missing[0]}: no such file; run dvc repro there, or dvc pull")
    refuse_other_run(root, params)
    settings = with_precision(params.retriever, params.retrieve, params.score, precision)
    result = read_object(root / EVALUATION)
    folders = {"base": "models/base"}
    folders |= {name: f"models/compare/{name}" for name in params.evaluate.compare}
    folders |= {"reranker": RERANKER}
    rerankers = {
        name: root / folder
        for name, folder in folders.items()
        if (root / folder / "config.json").is_file()
    }
    encoder = encoder_of(root / RETRIEVER, settings.retriever)
    try:
        weights = weights_of(result, settings.retrieve)
        systems = known_systems(result["all"], rerankers, settings.retrieve)
    except DAMAGED:
        raise InputError(
            f"{root / EVALUATION}: no fusion weights or systems of these parameters; run dvc repro"
        ) from None
    corpus = kept_corpus(
        root, root / CORPUS, root / RETRIEVER, settings.retriever, settings.retrieve, encoder
    )
    return Opened(settings, weights, systems, rerankers, encoder, corpus)


def open_export(folder: Path, precision: str = "auto") -> Opened:
    """Open a folder of `tunerank export`.

    Raises:
        InputError: a file is not the one that was exported, or it has another format.
    """
    described = read_object(folder / EXPORTED)
    if described.get("format") != FORMAT:
        raise InputError(
            f"{folder / EXPORTED}: format {described.get('format')!r}, known is {FORMAT}; export "
            "again with this version of tunerank"
        )
    try:
        retriever = Retriever(
            source="path", path=str(folder / "retriever"), **described["retriever"]
        )
        retrieve, score = Retrieve(**described["retrieve"]), Score(**described["score"])
        weights = weights_of(described, retrieve)
        systems = known_systems(described["systems"], ["reranker"], retrieve)
        files = {
            name: (about["size"], about["sha256"]) for name, about in described["files"].items()
        }
    except (*DAMAGED, AttributeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder / EXPORTED}: damaged ({reason}); export again") from None
    refuse_other_files(folder, files)
    settings = with_precision(retriever, retrieve, score, precision)
    encoder = encoder_of(folder / "retriever", settings.retriever)
    texts = read_texts(folder / "corpus.jsonl", retrieve.title)
    try:
        corpus = load_corpus(folder, texts, retrieve, settings.retriever)
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: damaged ({reason}); export again") from None
    rerankers = {"reranker": folder / CHECKPOINT}
    return Opened(settings, weights, systems, rerankers, encoder, corpus)


def with_precision(
    retriever: Retriever, retrieve: Retrieve, score: Score, precision: str
) -> Settings:
    """Return settings in which `precision`, unless it is `auto`, replaces the run's own.

    Raises:
        InputError: there is no such precision, or not here.
    """
    if precision not in ("auto", *DTYPES):
        raise InputError(f"precision {precision!r}: set auto, {', '.join(DTYPES)}")
    if precision != "auto":
        changed = {"precision": precision}
        retriever, score = (one.model_copy(update=changed) for one in (retriever, score))
    for one in (retriever, score):
        choose_precision(one.precision)
    return Settings(retriever, retrieve, score)


def refuse_other_run(root: Path, params: Params) -> None:
    """Check that the run of dvc.lock is whole, and that params.yaml has what it searched with.

    A corpus that `prepare` has made since is no fault: it is searched by what was measured.

    Raises:
        InputError: it is not.
    """
    try:
        stages = yaml.load((root / "dvc.lock").read_text(encoding="utf-8"), Loader)["stages"]
        ran = {name: stages[name]["params"]["params.yaml"] for name in ("retrieve", "score")}
        pairs = [(Retrieve(**ran["score"]["retrieve"]), params.retrieve, "retrieve")]
        pairs += [(Score(**ran["score"]["score"]), params.score, "score")]
        pairs += [
            (value, getattr(params.retriever, key.partition(".")[2]), key)
            for key, value in ran["retrieve"].items()
            if key.startswith("retriever.")
        ]
        made = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
        older = [
            (name, dep["path"])
            for name in ("score", "evaluate")
            for dep in stages[name]["deps"]
            if dep["path"] in MEASURED and made[dep["path"]] != dep["md5"]
        ]
    except (*DAMAGED, yaml.YAMLError, ValidationError, AttributeError):
        raise InputError(f"{root / 'dvc.lock'}: no whole run is in it; run dvc repro") from None
    if other := [key for was, now, key in pairs if was != now]:
        raise InputError(
            f"{root / 'params.yaml'}: another {other[0]} than the run in dvc.lock had; run dvc "
            "repro, or git checkout params.yaml"
        )
    if older:
        name, path = older[0]
        raise InputError(f"{root / 'dvc.lock'}: stage {name} is older than {path}; run dvc repro")


def refuse_other_files(folder: Path, files: dict[str, tuple[int, str]]) -> None:
    """Check an exported folder: the corpus and small files by content, large files by size.

    Raises:
        InputError: a file is missing or another one.
    """
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; export again")
        same = path.stat().st_size == size
        if same and (size <= SMALL or name == "corpus.jsonl"):
            same = file_digest(path) == digest
        if not same:
            also = ", or add passages by Searcher.update" if name == "corpus.jsonl" else ""
            raise InputError(f"{path}: not the file that was exported; export again{also}")


def read_object(path: Path) -> dict:
    """Return the object of a JSON file.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "not valid JSON"
        raise InputError(f"{path}: {reason}; run dvc repro, or export again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; run dvc repro, or export again")
    return value
