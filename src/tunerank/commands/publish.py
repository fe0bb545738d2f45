"""Publish the fine-tuned checkpoint and its model card to the Hugging Face Hub."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from tunerank.core.errors import InputError
from tunerank.params.load import Params, load
from tunerank.provenance.lock import Origin, checkpoint_files, git, proven, uncommitted
from tunerank.publishing.card import base_license, model_card
from tunerank.publishing.upload import Files, check, explained, send, size
from tunerank.searching.weights import CHECKPOINT, SEARCH

PUBLISHED = Path("models/published.jsonl")


def publish_checkpoint(
    model: Path,
    repo: str,
    private: bool,
    tag: str | None,
    license: str | None,
    languages: Sequence[str],
    search: bool,
    dry_run: bool,
) -> None:
    """Publish the checkpoint that dvc.lock names, with its card, and append it to PUBLISHED.

    Args:
        search: publish what `tunerank export` writes, too, in the folder `search`.

    Raises:
        InputError: a name that the Hub refuses, a checkpoint of another commit, or an error of the
            Hub.
    """
    check_names(repo, tag, license, languages)
    params = load()
    files: Files = {path.relative_to(model).as_posix(): path for path in checkpoint_files(model)}
    origin = proven(model)
    if origin.dirty and not dry_run:
        changed = ", ".join(uncommitted())
        raise InputError(
            f"uncommitted changes, so nobody can reproduce it: {changed}; commit them first"
        )
    if search and tag is None:
        tag = f"run-{origin.commit[:10]}"  # the card of a commit cannot name that commit
    revision = tag or constants.DEFAULT_REVISION
    card = model_card(repo, revision, params, origin, license, list(languages), search)
    files["README.md"] = card.encode()
    if base_license(params.base):  # MIT: its text goes with every copy
        files["LICENSE"] = Path("models/LICENSE").read_bytes()
    with search_files(model, params, origin) if search else nullcontext({}) as found:
        files |= found
        if dry_run:
            show(repo, card, files)
        else:
            upload(repo, private, tag, files, origin)


@contextmanager
def search_files(model: Path, params: Params, origin: Origin) -> Iterator[Files]:
    """Yield the files of `search`: an export without the checkpoint, which is in the repository.

    Raises:
        InputError: something here is not of the run in dvc.lock.
    """
    from tunerank.commands.export import exported  # it imports torch

    with exported(model, params, origin) as folder:
        names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        yield {
            f"{SEARCH}/{name}": path
            for name, path in names.items()
            if path.is_file() and not name.startswith(f"{CHECKPOINT}/")
        }


def show(repo: str, card: str, files: Files) -> None:
    """Print the card and the list of files, and who could read the passages."""
    print(card)
    for name, content in sorted(files.items()):
        print(f"{size(content):>13,}  {name}")
    if any(name.startswith(f"{SEARCH}/") for name in files):
        print(f"{SEARCH}/ has the passages: whoever may read {repo} will be able to read them")


def upload(repo: str, private: bool, tag: str | None, files: Files, origin: Origin) -> None:
    """Send the files, tag the commit, append it to PUBLISHED, and print how to use it.

    Raises:
        InputError: what the Hub answered, and the state that it left.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    revision = send(repo, private, tag, files, f"Reranker made by {origin.commit[:10]}")
    record = {
        "repo": repo,
        "revision": revision,
        "tag": None,
        "git_commit": origin.commit,
        "checkpoint_md5": origin.md5,
    }
    try:
        check(repo, revision, files)
        if tag:
            with explained(repo, f"the commit {revision} is there, its tag {tag} is not"):
                HfApi().create_tag(repo, tag=tag, revision=revision)
            record["tag"] = tag
    finally:
        with open(PUBLISHED, "a", encoding="utf-8", newline="\n") as out:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    at = f"{repo} at {revision}{f', tag {tag}' if tag else ''}"
    searches = any(name.startswith(f"{SEARCH}/") for name in files)
    searcher = f'Searcher("{repo}", revision="{revision}")\n' if searches else ""
    without = f', ignore_patterns="{SEARCH}/*"' if searches else ""
    print(
        f"{at}; noted in {PUBLISHED}, to be committed\n{searcher}"
        f'FlagReranker(snapshot_download("{repo}", revision="{revision}"{without}))\n'
        f'CrossEncoder("{repo}", revision="{revision}")\n'
        f"dvc exp run -S base.source=hub -S base.repo={repo} -S base.revision={revision}"
    )


def check_names(repo: str, tag: str | None, license: str | None, languages: Sequence[str]) -> None:
    """Check the names on the command line before anything is read.

    Raises:
        InputError: a name that the Hub would refuse.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"--repo {repo}: {error}") from None
    if "/" not in repo:
        raise InputError(f"--repo {repo}: write organisation/name, or user/name")
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise InputError(
            f"--license {license}: no identifier of "
            "https://huggingface.co/docs/hub/repositories-licenses"
        )
    if bad := [language for language in languages if not re.fullmatch(r"[a-z]{2,3}", language)]:
        raise InputError(f"--language {bad[0]}: no ISO 639 code such as zh")
    if tag is not None:
        try:
            git("check-ref-format", f"refs/tags/{tag}")
        except InputError:
            raise InputError(f"--tag {tag}: Git allows no such name") from None
