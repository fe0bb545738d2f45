"""Serve a checkpoint, a repository or an export over HTTP."""

import ipaddress
import os
import resource
import signal
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tunerank.commands.arguments import needs
from tunerank.commands.rank import no_bars_in_logs, no_collection
from tunerank.core.errors import InputError, quiet_libraries
from tunerank.serving.connections import Server, bound, resolved
from tunerank.serving.guard import Guard
from tunerank.serving.limits import Limits

KEY = "TUNERANK_API_KEY"
SEARCHABLE = ("dvc.yaml", "search.json")
"""Files of a folder that Searcher opens: a repository, or what `tunerank export` wrote."""
CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Environment variables of oneDNN and of torch's layer above it: shapes of batches that compiled
kernels are kept for."""
KEPT_SHAPES = "64"


def serve(
    source: str,
    host: str,
    port: int,
    names: Sequence[str],
    whole: bool,
    precision: str,
    feedback: Path | None,
    limits: Limits,
) -> None:
    """Serve `source` until SIGTERM or Ctrl-C.

    Args:
        names: that clients may give as `model`; none: the folder's.
        whole: score whole documents, not the views that Ranker scores.
        feedback: folder for what people call right and wrong; None: they are not asked.

    Raises:
        InputError: nothing that can be served, an address that is taken or needs a key.
    """
    bound_kernel_caches()
    family, address = resolved(host, port)
    here = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
    key = key_for(host, here)
    with bound(family, address) as listening:
        guard = opened(source, names, whole, precision, feedback, limits, key, host)
        where = f"[{host}]" if ":" in host else host

        def ready() -> None:
            place = f"http://{where}:{listening.getsockname()[1]}"
            print(f"{source}: serving on {place}, described at {place}/docs", flush=True)

        allow_files(3 * limits.connections + 256)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on the server hears it
        Server(guard, ready).run(sockets=[listening])
    print(f"{source}: stopped; what was asked before is answered")


def bound_kernel_caches() -> None:
    """Keep kernels for KEPT_SHAPES shapes, unless the environment says otherwise.

    By default it is 1024. Almost every batch of a server has another shape: with the bundled base
    in bf16 memory grew from 0.5 to 1.8 GB over 750 shapes. With 64 it stays at 0.6 GB, and small
    batches take 5 % longer. torch reads the variables when it is imported.
    """
    for name in CACHES:
        os.environ.setdefault(name, KEPT_SHAPES)


def key_for(host: str, here: bool) -> str | None:
    """Return the key that clients need, None without one.

    Raises:
        InputError: others than this machine's users can ask, and there is no key.
    """
    key = os.environ.get(KEY)
    if key is None and not here:
        raise InputError(
            f"--host {host}: other machines can ask there, so a key is needed: {KEY}=... in the "
            "environment, and clients send Authorization: Bearer with it"
        )
    if key is not None and (key != key.strip() or len(key) < 8 or not key.isascii()):
        raise InputError(f"{KEY}: give at least 8 ASCII characters, without blanks around them")
    return key


def opened(
    source: str,
    names: Sequence[str],
    whole: bool,
    precision: str,
    feedback: Path | None,
    limits: Limits,
    key: str | None,
    host: str,
) -> Guard:
    """Load what is served and return the application.

    Raises:
        InputError: it is nothing that can be served.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"{source}: no such folder; give a checkpoint, a repository or an export")
    searcher: Any = None
    with no_collection(), no_bars_in_logs():  # loading torch takes seconds
        with needs("serve"):
            from tunerank.serving.app import application
            from tunerank.serving.service import Service
        if any(folder.joinpath(name).is_file() for name in SEARCHABLE):
            with needs("serve,pipeline"):
                from tunerank.searcher import Searcher

            quiet_libraries()
            searcher = Searcher(source, precision=precision)
            ranker = searcher.ranker
        else:
            from tunerank.ranker import Ranker

            quiet_libraries()
            ranker = Ranker(source, precision)
    if feedback and searcher is None:
        raise InputError(f"--feedback: {source} has no passages to search; serve a repository")
    own = [*names] or [folder.resolve().name or "model", source.rstrip("/") or source]
    if searcher and not names:
        own.append("reranker")
    service = Service.of(ranker, own, whole, searcher, limits)
    hosts = None if key else {"localhost", "127.0.0.1", "::1", host.lower()}
    routers, public = pages(searcher, feedback)
    # The first forward pass prepares kernels, so the first client does not wait for it.
    service.scorer.score([ranker.encoder.tokenizer("a", "b")["input_ids"]], lambda _: None)
    return application(service, key, hosts, routers, public)


def pages(searcher: Any, feedback: Path | None) -> tuple[Sequence[Any], Collection[str]]:
    """Return the routers of the page to try a search, and the paths that need no key."""
    if searcher is None:
        return (), ()
    from tunerank.serving.feedback import feedback_router
    from tunerank.serving.page import page_router

    routers = [page_router(searcher.systems, feedback is not None)]
    if feedback:
        routers.append(feedback_router(feedback, getattr(searcher, "text_of", None)))
    return routers, ("/",)  # the page itself says nothing; it asks for the key


def allow_files(count: int) -> None:
    """Let this process have as many connections and files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
