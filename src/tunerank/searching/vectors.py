"""Keep vectors by the digests of their texts, so that only new texts are encoded."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from tunerank.params.base import Retriever
from tunerank.retrieval.retrievers import DenseEncoder

SIZE = 16
"""Bytes of a digest."""

KINDS = ("passages", "windows")
"""What `Index` encodes, by the names that it gives. They have a file each: the same text in a batch
of windows has another last digit than in one of passages, and the run had both."""


@dataclass(frozen=True)
class Vectors:
    """digests: uint8 of shape (rows, SIZE), of prefix and text; rows: float32 (rows, hidden size).

    The rows are in the order in which `Index` has them.
    """

    digests: np.ndarray
    rows: np.ndarray


class KnownVectors:
    """Give `Index` the vectors that are known, and encode the others.

    It stands where `Index` takes its `DenseEncoder`.

    Args:
        encoder: returns what encodes texts; called if there is a new one.
        known: kind -> vectors, of any corpus.

    Attributes:
        made: kind -> the vectors that were given.
    """

    def __init__(
        self, params: Retriever, encoder: Callable[[], DenseEncoder], known: Mapping[str, Vectors]
    ):
        self.params, self.encoder, self.known = params, encoder, known
        self.made: dict[str, Vectors] = {}

    def encode(self, texts: Sequence[str], prefix: str, what: str) -> np.ndarray:
        """Return float32 of shape (len(texts), hidden size); new texts are encoded together."""
        wanted, known = digests(texts, prefix), self.known.get(what)
        places = {} if known is None else {key: row for row, key in enumerate(keys(known.digests))}
        found = [places.get(key) for key in keys(wanted)]
        new = [index for index, place in enumerate(found) if place is None]
        old = [index for index, place in enumerate(found) if place is not None]
        rows = encoded = (
            self.encoder().encode([texts[i] for i in new], prefix, what) if new else None
        )
        if old:
            rows = np.empty((len(texts), known.rows.shape[1]), np.float32)
            rows[old] = known.rows[[found[i] for i in old]]
            if new:
                rows[new] = encoded
        self.made[what] = Vectors(wanted, rows)
        return rows


class SameVectors(KnownVectors):
    """Give `Index` the vectors of the very same corpus, without a look at its texts.

    Args:
        known: kind -> vectors of the corpus.
    """

    def __init__(self, params: Retriever, known: Mapping[str, Vectors]):
        super().__init__(params, _nothing_is_encoded, known)

    def encode(self, texts: Sequence[str], prefix: str, what: str) -> np.ndarray:
        known = self.known.get(what)
        if known is None or len(known.rows) != len(texts):
            raise ValueError(f"no vectors of {len(texts)} {what}")
        self.made[what] = known
        return known.rows


def _nothing_is_encoded() -> DenseEncoder:
    raise AssertionError("all texts are known")


def digests(texts: Sequence[str], prefix: str) -> np.ndarray:
    """Return uint8 of shape (len(texts), SIZE)."""
    joined = b"".join(
        hashlib.blake2b((prefix + text).encode("utf-8", "surrogatepass"), digest_size=SIZE).digest()
        for text in texts
    )
    return np.frombuffer(joined, np.uint8).reshape(-1, SIZE)


def keys(found: np.ndarray) -> list[bytes]:
    """Return the rows of an array of digests as keys of a dict."""
    joined = found.tobytes()
    return [joined[start : start + SIZE] for start in range(0, len(joined), SIZE)]


def write_vectors(folder: Path, made: Mapping[str, Vectors]) -> None:
    """Write KIND.npy and KIND.digests.npy for each kind."""
    folder.mkdir()
    for kind, vectors in made.items():
        np.save(folder / f"{kind}.npy", np.ascontiguousarray(vectors.rows, np.float32))
        np.save(folder / f"{kind}.digests.npy", vectors.digests)


def read_vectors(folder: Path) -> dict[str, Vectors]:
    """Return kind -> vectors of a folder, mapped into memory; nothing is read before it is used.

    Raises:
        ValueError, OSError: a file is damaged.
    """
    found = {}
    for kind in KINDS:
        if (folder / f"{kind}.npy").is_file():
            rows, known = (
                np.asarray(open_memmap(folder / f"{kind}{end}.npy", mode="r"))
                for end in ("", ".digests")
            )
            if (rows.dtype, rows.ndim) != (np.float32, 2) or known.shape != (len(rows), SIZE):
                raise ValueError(f"{folder}: {kind} are no vectors with their digests")
            found[kind] = Vectors(known, rows)
    return found
