"""The fine-tuned checkpoint, with a model card made from its run, to a repository on the Hugging Face Hub.

    python src/publish.py --repo my-org/my-reranker --dry-run       # print the card and the files; no network
    python src/publish.py --repo my-org/my-reranker --private --tag v1

Only the checkpoint that dvc.lock names is published, with metrics, parameters and code of the same dvc.lock, all in Git.
Everything goes up in one commit. Its revision is printed and appended to models/published.jsonl. The token is that of HF_TOKEN
or `hf auth login`; HF_ENDPOINT is respected.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from reranker.card import base_license, model_card
from reranker.errors import InputError, run
from reranker.params import load
from reranker.provenance import SUFFIXES, checkpoint_files, git, proven, uncommitted

PUBLISHED = Path("models/published.jsonl")
# A file of these that another checkpoint left in the repository might be loaded in place of ours.
STALE = (*SUFFIXES, ".bin", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".py")
Files = dict[str, Path | bytes]
"""Name in the repository -> the file, or its content."""


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(prog="publish.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=Path("models/reranker"), help="default: models/reranker")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="made where there is none")
    parser.add_argument("--private", action="store_true", help="make it private; one that is public is then refused")
    parser.add_argument("--tag", help="of the commit; one that exists is refused")
    parser.add_argument("--license", help="identifier of the Hub's, such as apache-2.0 (default: the bundled base's, mit)")
    parser.add_argument("--language", action="append", default=[], help="ISO 639 code of the data; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="print the card and the files, without network")
    options = parser.parse_args(arguments)
    check_names(options)

    params = load()
    files: Files = {path.relative_to(options.model).as_posix(): path for path in checkpoint_files(options.model)}
    origin = proven(options.model)
    if origin.dirty and not options.dry_run:
        raise InputError(f"uncommitted changes, which nobody could make again: {', '.join(uncommitted())}; commit them first")
    card = model_card(options.repo, options.tag or constants.DEFAULT_REVISION, params, origin, options.license, options.language)
    files["README.md"] = card.encode()
    if base_license(params.base):  # MIT: its text goes with every copy
        files["LICENSE"] = Path("models/LICENSE").read_bytes()
    if options.dry_run:
        print(card)
        print("\n".join(f"{size(content):>13,}  {name}" for name, content in sorted(files.items())))
        return

    if not sys.stderr.isatty():
        disable_progress_bars()
    revision = send(options.repo, options.private, options.tag, files, f"Reranker made by {origin.commit[:10]}")
    record = {"repo": options.repo, "revision": revision, "tag": None, "git_commit": origin.commit, "checkpoint_md5": origin.md5}
    try:
        check(options.repo, revision, files)
        if options.tag:
            with explained(options.repo, f"the commit {revision} is there, its tag {options.tag} is not"):
                HfApi().create_tag(options.repo, tag=options.tag, revision=revision)
            record["tag"] = options.tag
    finally:
        with open(PUBLISHED, "a", encoding="utf-8", newline="\n") as out:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(
        f"{options.repo} at {revision}{f', tag {options.tag}' if options.tag else ''}; noted in {PUBLISHED}, to be committed\n"
        f'FlagReranker(snapshot_download("{options.repo}", revision="{revision}"))\n'
        f'CrossEncoder("{options.repo}", revision="{revision}")\n'
        f"dvc exp run -S base.source=hub -S base.repo={options.repo} -S base.revision={revision}"
    )


def check_names(options: argparse.Namespace) -> None:
    """
    Raises:
        InputError: a name on the command line that the Hub would refuse, before anything is read.
    """
    try:
        validate_repo_id(options.repo)
    except HFValidationError as error:
        raise InputError(f"--repo {options.repo}: {error}") from None
    if "/" not in options.repo:
        raise InputError(f"--repo {options.repo}: write organisation/name, or user/name")
    if options.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", options.license):
        raise InputError(f"--license {options.license}: no identifier of https://huggingface.co/docs/hub/repositories-licenses")
    if bad := [language for language in options.language if not re.fullmatch(r"[a-z]{2,3}", language)]:
        raise InputError(f"--language {bad[0]}: no ISO 639 code such as zh")
    if options.tag is not None:
        try:
            git("check-ref-format", f"refs/tags/{options.tag}")
        except InputError:
            raise InputError(f"--tag {options.tag}: Git allows no such name") from None


def send(repo: str, private: bool, tag: str | None, files: Files, message: str) -> str:
    """Make `files` the checkpoint at the head of `repo`, in one commit, or none at all.

    Args:
        private: of a repository that is made here; tag: that must not be there yet; message: of the commit.

    Returns:
        The commit, 40 hexadecimal digits; the present one where nothing differs.

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
            raise InputError(f"{repo} is public already; leave --private away, or make it private on the Hub first")
        refs = api.list_repo_refs(repo)
        if tag in {ref.name for ref in refs.tags + refs.branches}:
            raise InputError(f"{repo} has a tag or branch {tag} already; nothing was published, take another --tag")
        there = api.list_repo_files(repo, revision=info.sha)
        stale = [name for name in there if name not in files and Path(name).suffix in STALE]
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        operations += [CommitOperationDelete(name) for name in stale]
        # On top of the head that was looked at: whoever commits meanwhile makes this one fail, not mix with theirs.
        return api.create_commit(repo, operations, commit_message=message, parent_commit=info.sha).oid


def check(repo: str, revision: str, files: Files) -> None:
    """
    Raises:
        InputError: a file is not in the commit; a .gitignore in the repository leaves it out without a word.
    """
    with explained(repo, f"the commit {revision} is there, but was not checked or tagged"):
        entries = HfApi().list_repo_tree(repo, recursive=True, revision=revision)
        found = {entry.path: getattr(entry, "size", None) for entry in entries}  # a folder has none
    if missing := [name for name, content in files.items() if found.get(name) != size(content)]:
        raise InputError(f"{repo} at {revision} lacks {', '.join(missing)} (a .gitignore there?); do not use that commit")


def size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@contextmanager
def explained(repo: str, state: str) -> Iterator[None]:
    """What huggingface_hub raises as one line: why, and what the `state` is now. Whatever a server says, no token is in it."""
    token = None
    try:
        token = get_token()
        if token is None:
            raise InputError("there is no token to publish with: set HF_TOKEN to one that may write, or run hf auth login")
        if not re.fullmatch(r"[!-~]+", token):
            raise InputError("the token holds characters that no token has: set HF_TOKEN anew, or run hf auth login")
        yield
    except InputError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = why(repo, error)
        raise InputError(f"{reason.replace(token, '***') if token else reason}; {state}") from None


def why(repo: str, error: BaseException) -> str:
    while isinstance(error, RuntimeError) and error.__cause__:  # of a file in one of several threads
        error = error.__cause__
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    # Without a message of the server's, what follows the first line of an HTTP error is the client's general advice.
    text = error.server_message or str(error).partition("\n")[0] if status else str(error)
    said = " ".join(text.split())[:300] or type(error).__name__
    if status == 401:
        return "the Hub refuses the token: set HF_TOKEN to a valid one, or run hf auth login"
    if status == 403:
        return f"the token may not write to {repo} ({said}): it needs the permission, and its owner a role there"
    if status in (409, 412):
        return f"{repo} was changed meanwhile, or is not yours to see ({said}): look at it on the Hub and try again"
    if status or isinstance(error, ValueError):
        return f"the Hub did not take it ({said})"
    return f"{constants.ENDPOINT} could not be reached ({said}): check the network, HF_ENDPOINT and HF_HUB_OFFLINE"


if __name__ == "__main__":
    run(main)
