"""A checkpoint is safetensors and data alone: what would make transformers run, unpickle or fetch anything else is refused.

transformers takes more from a folder than weights: `auto_map` names Python files in it (and where nothing is said about them asks
on the terminal whether to run them), an attention implementation may name a kernel on the Hub, `tokenizer_class` any class of
transformers (`RagRetriever` loads data sets), an adapter another base on the Hub, an index of shards files anywhere. Read in the
`from_pretrained` of transformers 5.23 (models/auto, modeling_utils.py, tokenization_utils_base.py, integrations/peft.py); each is
tried with the real loader in tests/test_security.py. There is no parameter that allows any of it.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reranker.errors import InputError

SUFFIXES = (".json", ".safetensors", ".txt", ".model")
"""Of what is loaded from; other files in a folder are left where they are."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIGS = ("config.json", "tokenizer_config.json")
REFUSED = {
    "auto_map": "names code",
    "custom_pipelines": "names code",
    "quantization_config": "is of quantised weights, which another package loads",
    "transformers_weights": "names another file of weights",
    "configuration_files": "names other files",
    "fast_tokenizer_files": "names other files",
    "gguf_file": "names another file",
    "init_inputs": "names other files",
}
"""Keys of config.json and tokenizer_config.json, at any depth, that say what else is to be loaded."""
ATTENTION = (None, "eager", "sdpa")
"""torch's own; any other is a package's, or a kernel's on the Hub."""


def refuse_unsafe(folder: Path, name: str, weights: Iterable[str] = (WEIGHTS, INDEX)) -> None:
    """Look at all that would be loaded from a checkpoint folder, before anything is.

    Args:
        name: of the folder, in messages; weights: the files one of which it needs.

    Raises:
        InputError: what in it is more than data, or is no checkpoint.
    """
    for path in sorted([*folder.glob("*"), *folder.glob("1_Pooling/*")]):
        if path.suffix in SUFFIXES or path.name == "1_Pooling":
            refuse_outside(path, folder, name)
    if not (folder / "config.json").is_file():
        raise InputError(f"{name}: no checkpoint (config.json is missing)")
    if (folder / "adapter_config.json").exists():
        raise InputError(f"{name} is an adapter, which names the base to load beside it; merge it into its base first")
    if not any((folder / file).is_file() for file in weights):
        raise InputError(f"{name} has no {WEIGHTS}; pickled weights are not loaded, convert them")
    for path in sorted(folder.glob("*.safetensors")):
        refuse_broken(path, name)
    if (folder / INDEX).is_file():
        for shard in shards(folder / INDEX, name):
            if Path(shard).name != shard or Path(shard).suffix != ".safetensors" or not (folder / shard).is_file():
                raise InputError(f"{name}: {INDEX} names {shard!r}, which is no safetensors file of that folder")
    values = {file: read_json(folder / file, name) for file in CONFIGS if (folder / file).is_file()}
    for file, config in values.items():
        refuse_named(config, f"{name}: {file}")
    model_type = values["config.json"].get("model_type")
    if not isinstance(model_type, str) or model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        reason = "for which transformers has no text classifier; code from elsewhere is not run"
        raise InputError(f"{name}: config.json is of model_type {model_type!r}, {reason}")


def refuse_outside(path: Path, folder: Path, name: str) -> None:
    """A link may stay in the folder or, in huggingface_hub's cache (.../snapshots/COMMIT), lead to the repository's blobs."""
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError):  # RuntimeError before Python 3.13
        raise InputError(f"{name}: {path.relative_to(folder)} is a link to itself") from None
    allowed = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    if not any(target.is_relative_to(place) for place in allowed):
        raise InputError(
            f"{name}: {path.relative_to(folder)} is a link out of that folder, to {target}; put the file itself there"
        )
    if not target.is_file() and not (path.name == "1_Pooling" and target.is_dir()):
        raise InputError(f"{name}: {path.relative_to(folder)} is no file")


def refuse_broken(path: Path, name: str) -> None:
    """The library itself checks the header: its length, and that the tensors fill the file exactly."""
    try:
        with safe_open(path, framework="np") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        with open(path, "rb") as content:
            start = content.read(4)
        kind = "a pickle" if start[:1] == b"\x80" else "a zip file, as of torch.save" if start == b"PK\x03\x04" else "damaged"
        raise InputError(f"{name}: {path.name} is no safetensors file but {kind} ({error}); it is not loaded") from None


def shards(index: Path, name: str) -> list[str]:
    named = read_json(index, name).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
        raise InputError(f"{name}: {INDEX} has no weight_map of tensors to files")
    return sorted(set(named.values()))


def read_json(path: Path, name: str) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: {path.name} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{name}: {path.name} is no JSON object")
    return value


def refuse_named(config: dict, where: str) -> None:
    for key, value in entries(config):
        if key in REFUSED and value:
            raise InputError(f"{where} has {key}, which {REFUSED[key]}; only safetensors and data are loaded")
        implementations = leaves(value) if key.removesuffix("_internal").endswith("_implementation") else ()
        if other := [name for name in implementations if name not in ATTENTION]:
            raise InputError(f"{where} has {key} {other[0]!r}, which is code from elsewhere; only eager and sdpa are taken")
        if key == "tokenizer_class" and not (value is None or isinstance(value, str) and is_tokenizer(value)):
            raise InputError(f"{where} has tokenizer_class {value!r}, which is no tokenizer that can be loaded here")


def is_tokenizer(class_name: str) -> bool:
    """Whether transformers finds a tokenizer under that name; for one that it does not know it takes the plain one."""
    try:
        found = tokenizer_class_from_name(class_name)
    except ImportError:  # of a package that is not installed
        return False
    return found is None or (isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase))


def entries(value: object) -> Iterator[tuple[str, object]]:
    """Every (key, value) of the JSON value's objects, at any depth."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from entries(inner)


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value
