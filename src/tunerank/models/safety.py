"""Refuse checkpoints that would make transformers run, unpickle or download anything.

transformers loads more from a folder than weights. `auto_map` names Python files in it; without
`trust_remote_code` transformers asks on the terminal whether to run them. An attention
implementation may name a kernel on the Hub, `tokenizer_class` any class of transformers
(`RagRetriever` loads data sets), an adapter another base on the Hub, and an index of shards files
anywhere. These ways were found in `from_pretrained` of transformers 5.23 (models/auto,
modeling_utils.py, tokenization_utils_base.py, integrations/peft.py); tests/test_security.py tries
each with the real loader. No parameter allows any of them.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from tunerank.core.errors import InputError

SUFFIXES = (".json", ".safetensors", ".txt", ".model")
"""Suffixes of the files that are loaded; other files in a folder are ignored."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIGS = ("config.json", "tokenizer_config.json")
REFUSED = {
    "auto_map": "names code",
    "custom_pipelines": "names code",
    "quantization_config": "names quantised weights, which need another package",
    "transformers_weights": "names another file of weights",
    "configuration_files": "names other files",
    "fast_tokenizer_files": "names other files",
    "gguf_file": "names another file",
    "init_inputs": "names other files",
}
"""Keys of config.json and tokenizer_config.json, at any depth, that make transformers load more."""
ATTENTION = (None, "eager", "sdpa")
"""PyTorch's own attention; any other name is a package or a kernel on the Hub."""


def refuse_unsafe(folder: Path, name: str, weights: Iterable[str] = (WEIGHTS, INDEX)) -> None:
    """Check all files of a checkpoint folder before anything is loaded from it.

    Args:
        name: of the folder, in messages.
        weights: the folder needs one of these files.

    Raises:
        InputError: the folder is not a checkpoint, or contains more than data.
    """
    for path in sorted([*folder.glob("*"), *folder.glob("1_Pooling/*")]):
        if path.suffix in SUFFIXES or path.name == "1_Pooling":
            refuse_outside(path, folder, name)
    if not (folder / "config.json").is_file():
        raise InputError(f"{name}: not a checkpoint (config.json is missing)")
    if (folder / "adapter_config.json").exists():
        raise InputError(f"{name} is an adapter without its base; merge it into its base first")
    if not any((folder / file).is_file() for file in weights):
        raise InputError(f"{name} has no {WEIGHTS}; pickled weights are not loaded, convert them")
    for path in sorted(folder.glob("*.safetensors")):
        refuse_broken(path, name)
    if (folder / INDEX).is_file():
        refuse_foreign_shards(folder, name)
    configs = {
        file: read_json(folder / file, name) for file in CONFIGS if (folder / file).is_file()
    }
    for file, config in configs.items():
        refuse_keys(config, f"{name}: {file}")
    model_type = configs["config.json"].get("model_type")
    if (
        not isinstance(model_type, str)
        or model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    ):
        reason = "for which transformers has no text classifier; code of other packages is not run"
        raise InputError(f"{name}: config.json has model_type {model_type!r}, {reason}")


def refuse_outside(path: Path, folder: Path, name: str) -> None:
    """Refuse a link out of the folder.

    In huggingface_hub's cache (.../snapshots/COMMIT) a link may lead to the repository's blobs.
    With DVC's `cache.type symlink` an output's files are links into the cache of its repository.
    """
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError):  # RuntimeError before Python 3.13
        raise InputError(f"{name}: {path.relative_to(folder)} is a link to itself") from None
    allowed = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    inside = any(target.is_relative_to(place) for place in allowed)
    if not inside and not is_cached(target, home):
        raise InputError(
            f"{name}: {path.relative_to(folder)} is a link out of that folder, to {target}; put "
            "the file itself there"
        )
    if not target.is_file() and not (path.name == "1_Pooling" and target.is_dir()):
        raise InputError(f"{name}: {path.relative_to(folder)} is not a file")


def is_cached(target: Path, folder: Path) -> bool:
    """Return whether a file is an object in the DVC cache of the repository that has `folder`."""
    if not re.search(r"/[0-9a-f]{2}/[0-9a-f]{30}$", target.as_posix()):
        return False
    repository = next((parent for parent in folder.parents if (parent / ".dvc").is_dir()), None)
    cache = repository and cache_folder(repository)
    return cache is not None and target.is_relative_to(cache)


@lru_cache
def cache_folder(repository: Path) -> Path | None:
    """Return the folder of a repository's DVC cache, which may be shared with other repositories.

    None: DVC is not installed.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    return Path(done.stdout.strip()).resolve() if done.returncode == 0 else None


def refuse_broken(path: Path, name: str) -> None:
    """Refuse a damaged safetensors file.

    The library checks the header: its length, and that the tensors fill the file exactly.
    """
    try:
        with safe_open(path, framework="np") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        with open(path, "rb") as content:
            start = content.read(4)
        kind = (
            "a pickle"
            if start[:1] == b"\x80"
            else "a zip file, as of torch.save"
            if start == b"PK\x03\x04"
            else "damaged"
        )
        raise InputError(
            f"{name}: {path.name} is not a safetensors file but {kind} ({error}); it is not loaded"
        ) from None


def refuse_foreign_shards(folder: Path, name: str) -> None:
    """Refuse an index that names anything but safetensors files in the folder."""
    shards = read_json(folder / INDEX, name).get("weight_map")
    if (
        not isinstance(shards, dict)
        or not shards
        or not all(isinstance(shard, str) for shard in shards.values())
    ):
        raise InputError(f"{name}: {INDEX} has no weight_map of tensors to files")
    for shard in sorted(set(shards.values())):
        in_folder = Path(shard).name == shard and (folder / shard).is_file()
        if not in_folder or Path(shard).suffix != ".safetensors":
            raise InputError(
                f"{name}: {INDEX} names {shard!r}, which is not a safetensors file in that folder"
            )


def read_json(path: Path, name: str, kind: type[dict | list] = dict):
    """Return the value of a JSON file of a checkpoint, a dict unless `kind` is list.

    Raises:
        InputError: it is not valid JSON, or of another kind.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: {path.name} is not valid JSON ({error})") from None
    if not isinstance(value, kind):
        what = "object" if kind is dict else "array"
        raise InputError(f"{name}: {path.name} is not a JSON {what}")
    return value


def refuse_keys(config: dict, where: str) -> None:
    """Refuse keys of a config, at any depth, that make transformers load more than data."""
    for key, value in entries(config):
        if key in REFUSED and value:
            raise InputError(
                f"{where} has {key}, which {REFUSED[key]}; only safetensors and data are loaded"
            )
        if key.removesuffix("_internal").endswith("_implementation"):
            for implementation in leaves(value):
                if implementation not in ATTENTION:
                    raise InputError(
                        f"{where} has {key} {implementation!r}, which is code of another package; "
                        "only eager and sdpa are allowed"
                    )
        if key == "tokenizer_class" and value is not None and not is_tokenizer(value):
            raise InputError(
                f"{where} has tokenizer_class {value!r}, which is not a tokenizer that can be "
                "loaded here"
            )


def is_tokenizer(name: object) -> bool:
    """Return whether transformers loads a tokenizer for a class name.

    It uses the generic tokenizer for an unknown name.
    """
    if not isinstance(name, str):
        return False
    try:
        loaded = tokenizer_class_from_name(name)
    except ImportError:  # The class needs a package that is not installed.
        return False
    return loaded is None or (
        isinstance(loaded, type) and issubclass(loaded, PreTrainedTokenizerBase)
    )


def entries(value: object) -> Iterator[tuple[str, object]]:
    """Yield every (key, value) of a JSON value's objects, at any depth."""
    if isinstance(value, dict):
        yield from value.items()
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from entries(inner)


def leaves(value: object) -> Iterator[object]:
    """Yield every value of a JSON value that is neither an object nor a list."""
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value
