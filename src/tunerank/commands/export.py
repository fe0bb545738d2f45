"""Export what a run has measured as one folder, which searches without DVC and parameters."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tunerank.commands.replaced import refuse_file, refuse_foreign
from tunerank.core.errors import InputError
from tunerank.core.files import file_digest, link_or_copy, replacing, write_text
from tunerank.evaluation.markdown import split_name
from tunerank.params.load import Params, load
from tunerank.provenance.lock import (
    LOCKED,
    Origin,
    checkpoint_files,
    md5_of,
    outputs,
    proven,
    read_lock,
)
from tunerank.publishing.card import base_license
from tunerank.reranking.ways import system_name, ways
from tunerank.searching.corpus import copy_corpus
from tunerank.searching.kept import KEPT
from tunerank.searching.opened import CORPUS, FORMAT, RETRIEVER, open_repository
from tunerank.searching.running import alone, on_terminal
from tunerank.searching.systems import known_systems
from tunerank.searching.weights import CHECKPOINT, EXPORTED

PREPARED = "data/prepared"
READ = ("query_prefix", "passage_prefix", "pooling", "max_length", "precision")
"""The parameters of the retriever that its folder needs to be used."""


def export_search(folder: Path) -> None:
    """Write the reranker, retriever, corpus, vectors and BM25 index of this repository's run.

    The working folder is the repository's.

    Raises:
        InputError: `folder` has files of somebody else, or something here is not of the run in
            dvc.lock.
    """
    refuse_others_files(folder)
    params = load()
    origin = proven(Path(LOCKED))
    index(params)
    with replacing(folder) as partial:
        described = write_search(partial, Path(LOCKED), params, origin)
    print(summary(folder, described))


@contextmanager
def exported(model: Path, params: Params, origin: Origin) -> Iterator[Path]:
    """Yield a temporary folder with what `export_search` writes.

    Args:
        model: the checkpoint that `origin` is of.

    Raises:
        InputError: something here is not of the run in dvc.lock.
    """
    index(params)
    # Beside KEPT: files can be linked there, and .cache is not in Git.
    with TemporaryDirectory(prefix="export-", dir=KEPT.parent) as temporary:
        folder = Path(temporary, "search")
        write_search(folder, model, params, origin)
        yield folder


def index(params: Params) -> None:
    """Encode and index passages that are not in KEPT yet.

    Raises:
        InputError: passages or retriever are not of the run in dvc.lock.
    """
    refuse_other_outputs(params)
    with alone(bars=on_terminal()):
        open_repository(Path())


def write_search(folder: Path, model: Path, params: Params, origin: Origin) -> dict:
    """Write a new folder that searches; return the content of its search.json."""
    folder.mkdir()
    copy_files(model, folder / CHECKPOINT)
    if params.retrieve.dense:
        copy_files(Path(RETRIEVER), folder / "retriever")
    shutil.copy(CORPUS, folder / "corpus.jsonl")
    copy_corpus(KEPT, folder)
    if base_license(params.base) or params.retriever.source == "e5-small":
        shutil.copy("models/LICENSE", folder / "LICENSE")
    described = description(params, origin) | {"files": described_files(folder)}
    write_text(folder / EXPORTED, json.dumps(described, ensure_ascii=False, indent=2) + "\n")
    return described


def refuse_others_files(folder: Path) -> None:
    """Check that `folder` is missing, empty, or as this command left it.

    Raises:
        InputError: it is a file, or has files that would be lost.
    """
    refuse_file(folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    try:
        described = json.loads((folder / EXPORTED).read_text(encoding="utf-8"))
        own = {EXPORTED, *described["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        own = set()
    refuse_foreign(folder, names, own, "export")


def refuse_other_outputs(params: Params) -> None:
    """Check that passages and retriever are those of dvc.lock.

    Raises:
        InputError: they are not.
    """
    made = outputs(read_lock(Path("dvc.lock")))
    for path in [PREPARED, *([RETRIEVER] if params.retrieve.dense else [])]:
        if not Path(path).is_dir():
            raise InputError(f"{path}: no such folder; dvc pull {path}, or dvc repro")
        if md5_of(Path(path)) != made.get(path):
            raise InputError(
                f"{path} is not the one of dvc.lock: dvc checkout {path} brings that one back, dvc "
                "repro makes a new run"
            )


def copy_files(source: Path, target: Path) -> None:
    """Put the files of a checkpoint into a new folder, by hard links where they are possible."""
    for path in checkpoint_files(source):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(str(path), str(copied))


def description(params: Params, origin: Origin) -> dict:
    """Return the content of search.json without the list of files."""
    result, retrieve = origin.metrics["eval"], params.retrieve
    systems = known_systems(list(result["all"]), ["reranker"], retrieve)
    measures = ("hit@1", f"MRR@{params.evaluate.cutoff}")
    weights = [system_name("fusion_weights", way) for way in ways(retrieve)]
    return {
        "format": FORMAT,
        "systems": systems,
        **{name: result[name] for name in weights},
        "retriever": params.retriever.model_dump(include=set(READ)),
        "retrieve": retrieve.model_dump(),
        "score": params.score.model_dump(),
        "measured": {
            "split": result["split"],
            "questions": result["all"]["questions"],
            **{
                system: {name: result["all"][system][name] for name in measures}
                for system in systems
            },
        },
        "run": {
            "git_commit": origin.commit,
            "uncommitted_changes": origin.dirty,
            "dvc_lock_md5": md5_of(Path("dvc.lock")),
            "reranker_md5": origin.md5,
            "machine": origin.metrics["environment"],
        },
    }


def described_files(folder: Path) -> dict[str, dict]:
    """Return name -> size and SHA-256 of every file in a folder."""
    return {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": file_digest(path),
        }
        for path in sorted(path for path in folder.rglob("*") if path.is_file())
    }


def summary(folder: Path, described: dict) -> str:
    """Return what was written, and how it was measured."""
    measured, size = described["measured"], sum(one["size"] for one in described["files"].values())
    figures = ", ".join(f"{name} {value:.3f}" for name, value in measured["fused"].items())
    return (
        f"{folder}: {len(described['files']) + 1} files, {size / 1e6:,.0f} MB; fused: {figures} on "
        f"{measured['questions']} {split_name(measured['split'])} questions\n"
        f'Searcher("{folder}").search("...")'
    )
