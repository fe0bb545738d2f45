"""Download what `tunerank publish --search` put into a repository of the Hugging Face Hub, once."""

import re
import shutil
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HTTPError

from tunerank.core.errors import InputError
from tunerank.core.files import replacing
from tunerank.models.safety import SUFFIXES
from tunerank.searching.kept import locked
from tunerank.searching.weights import CHECKPOINT, EXPORTED, SEARCH
from tunerank.sources.fetch import explain_hub_error


def downloaded(repo: str, revision: str | None) -> Path:
    """Return the local folder with a revision of `repo`; it lies in HF_HOME/tunerank.

    Args:
        revision: a commit of 40 hexadecimal digits, or a tag.

    Raises:
        InputError: the revision is no such name, the Hub does not give it, or nothing was exported
            there.
    """
    if revision is None:
        raise InputError(
            f"{repo}: no such folder; a repository of the Hub needs revision=, a commit of 40 "
            "hexadecimal digits or a tag"
        )
    try:
        commit = revision if is_commit(revision) else tagged(repo, revision)
        home = Path(constants.HF_HOME, "tunerank", repo.replace("/", "--"))
        folder = home / commit
        with locked(home / f"{commit}.lock"):
            if not folder.is_dir():
                download(repo, revision, commit, folder)
    # HTTPError comes from httpx, RuntimeError from hf_xet.
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{repo} at {revision} {explain_hub_error(error)}") from None
    return folder / SEARCH


def is_commit(revision: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def tagged(repo: str, tag: str) -> str:
    """Return the commit of a tag.

    Raises:
        InputError: there is no such tag.
    """
    commits = {ref.name: ref.target_commit for ref in HfApi().list_repo_refs(repo).tags}
    if not is_commit(commits.get(tag, "")):
        raise InputError(
            f"{repo}: {tag!r} is no tag and no commit of 40 hexadecimal digits; a branch can move "
            "and is not taken"
        )
    return commits[tag]


def download(repo: str, revision: str, commit: str, folder: Path) -> None:
    """Download a commit's exported folder, and its checkpoint, into `folder`, or nothing at all.

    It is not loaded from huggingface_hub's own cache: files are links there, which lead out of the
    folder of a checkpoint.
    """
    with replacing(folder) as partial:
        found, inside = partial / SEARCH, [f"{SEARCH}/*"]
        snapshot_download(repo, revision=commit, local_dir=partial, allow_patterns=inside)
        if not (found / EXPORTED).is_file():
            raise InputError(
                f"{repo} at {revision}: no {SEARCH}/{EXPORTED} there, a checkpoint alone cannot "
                f"search; tunerank publish --repo {repo} --search puts it there"
            )
        if not (found / CHECKPOINT).is_dir():  # `tunerank publish` has it at the top alone
            snapshot_download(
                repo,
                revision=commit,
                local_dir=found / CHECKPOINT,
                allow_patterns=[f"*{suffix}" for suffix in SUFFIXES],
                ignore_patterns=inside,
            )
        for place in (partial, found / CHECKPOINT):  # huggingface_hub's bookkeeping
            shutil.rmtree(place / ".cache", ignore_errors=True)
