"""Publish the fine-tuned checkpoint and its model card to the Hugging Face Hub."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from tunerank.core.errors import InputError
from tunerank.params.load import load
from tunerank.provenance.lock import SUFFIXES, Origin, checkpoint_files, git, proven, uncommitted
from tunerank.publishing.card import base_license, model_card

PUBLISHED = Path("models/published.jsonl")
# A file of these that another checkpoint left in the repository could be loaded instead of ours.
STALE = (*SUFFIXES, ".bin", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".py")
Files = dict[str, Path | bytes]
"""Name in the repository -> the file, or its content."""


def publish_checkpoint(
    model: Path,
    repo: str,
    private: bool,
    tag: str | None,
    license: str | None,
    languages: Sequence[str],
    dry_run: bool,
) -> None:
    """Publish the checkpoint that dvc.lock names, with its card, and append it to PUBLISHED.

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
    revision = tag or constants.DEFAULT_REVISION
    card = model_card(repo, revision, params, origin, license, list(languages))
    files["README.md"] = card.encode()
    if base_license(params.base):  # MIT: its text goes with every copy
        files["LICENSE"] = Path("models/LICENSE").read_bytes()
    if dry_run:
        print(card)
        for name, content in sorted(files.items()):
            print(f"{size(content):>13,}  {name}")
    else:
        upload(repo, private, tag, files, origin)


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
    print(
        f"{at}; noted in {PUBLISHED}, to be committed\n"
        f'FlagReranker(snapshot_download("{repo}", revision="{revision}"))\n'
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


def send(repo: str, private: bool, tag: str | None, files: Files, message: str) -> str:
    """Make `files` the checkpoint at the head of `repo`, in one commit or not at all.

    Args:
        private: for a repository that is created here; tag: must not exist yet; message: of the
            commit.

    Returns:
        The commit, 40 hexadecimal digits; the present one if nothing differs.

    Raises:
        InputError: with the reason.
    """
    api = HfApi()
    with explained(repo, "nothing was published"):
        api.whoami()
        try:
            info = api.repo_info(repo)
        except RepositoryNotFoundError:
            api.create_repo(repo, private=private or None)
            info = api.repo_info(repo)
        if private and not info.private:
            raise InputError(
                f"{repo} is public already; leave --private away, or make it private on the Hub "
                "first"
            )
        refs = api.list_repo_refs(repo)
        if tag in {ref.name for ref in refs.tags + refs.branches}:
            raise InputError(
                f"{repo} has a tag or branch {tag} already; nothing was published, take another "
                "--tag"
            )
        there = api.list_repo_files(repo, revision=info.sha)
        stale = [name for name in there if name not in files and Path(name).suffix in STALE]
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        operations += [CommitOperationDelete(name) for name in stale]
        # With a parent, the commit fails if somebody else committed meanwhile.
        return api.create_commit(
            repo, operations, commit_message=message, parent_commit=info.sha
        ).oid


def check(repo: str, revision: str, files: Files) -> None:
    """Check that a commit has all files: a .gitignore in the repository drops some silently.

    Raises:
        InputError: naming those that are missing.
    """
    with explained(repo, f"the commit {revision} is there, but was not checked or tagged"):
        entries = HfApi().list_repo_tree(repo, recursive=True, revision=revision)
        sizes = {entry.path: getattr(entry, "size", None) for entry in entries}  # a folder has none
    if missing := [name for name, content in files.items() if sizes.get(name) != size(content)]:
        raise InputError(
            f"{repo} at {revision} lacks {', '.join(missing)} (a .gitignore there?); "
            "do not use that commit"
        )


def size(content: Path | bytes) -> int:
    """Return the bytes of a file or of a content."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@contextmanager
def explained(repo: str, state: str) -> Iterator[None]:
    """Turn an error of huggingface_hub into one line: the reason and the `state` that it leaves.

    The token is removed, whatever a server answers.
    """
    token = None
    try:
        token = get_token()
        if token is None:
            raise InputError(
                "there is no token to publish with: set HF_TOKEN to one that may write, "
                "or run hf auth login"
            )
        if not re.fullmatch(r"[!-~]+", token):
            raise InputError(
                "the token contains invalid characters: set HF_TOKEN again, or run hf auth login"
            )
        yield
    except InputError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = why(repo, error)
        raise InputError(f"{reason.replace(token, '***') if token else reason}; {state}") from None


def why(repo: str, error: BaseException) -> str:
    """Return the reason for an error of huggingface_hub, and what to do."""
    while isinstance(error, RuntimeError) and error.__cause__:  # raised in an upload thread
        error = error.__cause__
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    # Without a server's message, the first line is the error and the rest is general advice.
    text = error.server_message or str(error).partition("\n")[0] if status else str(error)
    answer = " ".join(text.split())[:300] or type(error).__name__
    if status == 401:
        return "the Hub refuses the token: set HF_TOKEN to a valid one, or run hf auth login"
    if status == 403:
        return (
            f"the token may not write to {repo} ({answer}): it needs the permission, "
            "and its owner a role there"
        )
    if status in (409, 412):
        return (
            f"{repo} was changed meanwhile, or is not yours to see ({answer}): "
            "look at it on the Hub and try again"
        )
    if status or isinstance(error, ValueError):
        return f"the Hub did not take it ({answer})"
    return (
        f"{constants.ENDPOINT} could not be reached ({answer}): "
        "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
    )
