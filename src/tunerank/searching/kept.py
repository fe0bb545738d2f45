"""Keep what is made of a repository's corpus in .cache/search, and make what is new.

    .cache/search/kept.json          of which corpus, retriever and parameters it is
    .cache/search/vectors, bm25      as in a folder of `tunerank export`
    .cache/search.lock               held while it is checked and made

Deleting any of it is safe.
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tunerank.core.errors import InputError, explain
from tunerank.core.files import file_digest, replacing, write_json
from tunerank.models.device import choose_precision
from tunerank.params.base import Retriever
from tunerank.params.data import Retrieve
from tunerank.retrieval.retrievers import DenseEncoder
from tunerank.searching.corpus import (
    DAMAGED,
    VECTORS,
    Corpus,
    build_corpus,
    load_corpus,
    read_texts,
    write_corpus,
)
from tunerank.searching.vectors import KnownVectors, read_vectors

KEPT, ABOUT = Path(".cache/search"), "kept.json"
FORMAT = 1


def kept_corpus(
    root: Path,
    path: Path,
    retriever_folder: Path,
    retriever: Retriever,
    retrieve: Retrieve,
    encoder: Callable[[], DenseEncoder],
) -> Corpus:
    """Return the corpus in `path`, from `root`/.cache/search or written there.

    Of a corpus that changed, texts without a vector of the same retriever are encoded.

    Raises:
        InputError: the corpus cannot be read, or .cache cannot be written.
    """
    folder = root / KEPT
    texts = read_texts(path, retrieve.title)
    with locked(folder.with_suffix(".lock")):
        before = read_about(folder)
        files = retriever_files(retriever_folder, before) if retrieve.dense else {}
        of_encoder = encoder_key(files, retriever)
        key = corpus_key(path, of_encoder, retriever, retrieve)
        if before.get("key") == key:
            try:
                return load_corpus(folder, texts, retrieve, retriever)
            except DAMAGED:
                before = {}
        known = {}
        if before.get("encoder") == of_encoder:
            try:
                known = read_vectors(folder / VECTORS)
            except DAMAGED:
                known = {}
        corpus = build_corpus(texts, retrieve, KnownVectors(retriever, encoder, known))
        with replacing(folder) as partial:
            write_corpus(partial, corpus)
            about = {"format": FORMAT, "key": key, "encoder": of_encoder, "retriever": files}
            write_json(partial / ABOUT, about)
        return load_corpus(folder, texts, retrieve, retriever)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock in the file system; wait while another process does.

    Raises:
        InputError: the file, or what is written meanwhile, cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        message, _ = explain(error, "search", "then try again")
        if message is None:
            raise
        raise InputError(message) from None


def read_about(folder: Path) -> dict:
    """Return what kept.json says, nothing if it is missing, damaged or of another format."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return about if about["format"] == FORMAT and isinstance(about["retriever"], dict) else {}
    except DAMAGED:
        return {}


def retriever_files(folder: Path, before: dict) -> dict[str, list]:
    """Return name -> [size, time, SHA-256] of the retriever's files.

    A file of the same size and time as before is not read again, as DVC does it.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        status, name = path.stat(), path.relative_to(folder).as_posix()
        was = before.get("retriever", {}).get(name)
        same = isinstance(was, list) and was[:2] == [status.st_size, status.st_mtime_ns]
        digest = was[2] if same and len(was) == 3 else file_digest(path)
        files[name] = [status.st_size, status.st_mtime_ns, digest]
    return files


def encoder_key(files: dict[str, list], retriever: Retriever) -> str:
    """Return a key that changes with the vector of any text."""
    precision = choose_precision(retriever.precision)
    contents = {name: about[2] for name, about in files.items()}
    return key_of(contents, retriever.pooling, retriever.max_length, precision)


def corpus_key(path: Path, of_encoder: str, retriever: Retriever, retrieve: Retrieve) -> str:
    """Return a key that changes with anything that vectors and BM25 index depend on."""
    used = retrieve.model_dump(include={"window", "stride", "title", "bm25_k1", "bm25_b"})
    kinds = [retrieve.dense, bool(retrieve.run), retriever.passage_prefix]
    packages = [version(name) for name in ("bm25s", "jieba")]
    return key_of(file_digest(path), of_encoder, used, kinds, packages)


def key_of(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
