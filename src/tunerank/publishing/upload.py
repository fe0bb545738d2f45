"""Send a checkpoint to a repository of the Hugging Face Hub, and check what arrived."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    constants,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError

from tunerank.core.errors import InputError
from tunerank.provenance.lock import SUFFIXES
from tunerank.searching.weights import SEARCH

# A file of these that another checkpoint left in the repository could be loaded instead of ours.
STALE = (*SUFFIXES, ".bin", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".py")

Files = dict[str, Path | bytes]
"""Name in the repository -> the file, or its content."""


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
    stale = [name for name in there if name not in files and is_stale(name)]
    announce(repo, info, files, stale)
    with explained(repo, "nothing was published"):
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        operations += [CommitOperationDelete(name) for name in stale]
        # With a parent, the commit fails if somebody else committed meanwhile.
        return api.create_commit(
            repo, operations, commit_message=message, parent_commit=info.sha
        ).oid


def is_stale(name: str) -> bool:
    """Return whether a file that is not of this publication could be taken for a part of it."""
    return Path(name).suffix in STALE or name.startswith(f"{SEARCH}/")


def announce(repo: str, info: ModelInfo, files: Files, stale: Sequence[str]) -> None:
    """Print who will be able to read the passages, or that those which are there are removed."""
    if any(name.startswith(f"{SEARCH}/") for name in files):
        if info.private:
            readers = f"{repo} is private: whoever has access to it"
        elif info.gated:
            readers = f"{repo} is gated: whoever accepts its terms and is let in"
        else:
            readers = f"{repo} is public: everybody"
        print(f"{readers} will be able to read the passages in {SEARCH}/", flush=True)
    elif any(name.startswith(f"{SEARCH}/") for name in stale):
        print(f"{SEARCH}/ will be removed; earlier commits keep it, passages included", flush=True)


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
