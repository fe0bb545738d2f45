"""Measure what a result depends on, with a small slice of the bundled data.

    python tests/faults/determinism.py      # prints a Markdown table row by row

Each run is compared with another, byte by byte or by its figures. The exit code is 1 if outputs
that must be identical are not. Everything is written into a temporary folder. The dense retriever
is models/retriever if it exists; otherwise the one that params.yaml names is downloaded. Every run
of a stage is a process of its own and uses the command of dvc.yaml.
"""

import csv
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # waiting threads free the cores of a busy machine

import torch

from tunerank.commands.verify import md5_of
from tunerank.core.files import read_by_id
from tunerank.data.passages import read_passages
from tunerank.data.questions import grades, read_questions
from tunerank.evaluation.measures import measure
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.params.base import Loader
from tunerank.params.load import load
from tunerank.reranking.scores import candidate_task
from tunerank.reranking.ways import RANKED

SLICE = {"train": 32, "valid": 6, "test": 32}
SHORT = 0.5  # epochs; bf16 is several times slower where the hardware has no bf16 and emulates it
SMALLER = {
    "retrieve": {"depth": 16, "views": 1, "views_depth": 0},
    "samples": {"window": 12, "negatives": 8, "random_negatives": 2},
    "train": {
        "batch_size": 4, "group_size": 4, "precision": "fp32", "evals_per_epoch": 1,
        "valid_depth": 4,
        "merge": [],  # otherwise the base may be kept and its weights compared with themselves
        "save_steps": 3, "logging_steps": 1,
    },
    "score": {"depth": 8, "precision": "fp32"},
    "evaluate": {"ks": [1, 2], "multiplier": 3, "resamples": 500},
}  # fmt: skip
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
THREADS = min(2, os.cpu_count() or 1)
OTHER = {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Pacific/Kiritimati"}


def main() -> None:
    begun, broken = time.monotonic(), []
    questions = " + ".join(f"{count} {split}" for split, count in SLICE.items())
    machine = f"{platform.machine()} ({torch.backends.cpu.get_cpu_capability()}), {THREADS} threads"
    print(f"{questions} questions of data/raw/yunshan; torch {torch.__version__}, {machine}\n")
    print("| what | against | result |\n|---|---|---|")

    def row(*cells: str) -> None:
        print(f"| {' | '.join(cells)} |", flush=True)

    def promised(what: str, against: str, one: Path, other: Path, stages: Iterable[str]) -> None:
        names = [name for stage in stages for name in outputs(stage)]
        differ = [name for name in names if md5_of(one / name) != md5_of(other / name)]
        row(what, against, f"{len(names) - len(differ)} of {len(names)} outputs identical")
        broken.extend(f"{name} ({what})" for name in differ)

    with tempfile.TemporaryDirectory() as temporary:
        whole = sliced(Path(temporary, "whole"))
        again = sliced(Path(temporary, "又一次 again"))
        for folder, environment in ((whole, {}), (again, OTHER)):
            for stage in STAGES:
                run(folder, stage, environment)
        promised(
            "every stage a second time",
            "another folder, hash seed, locale and time zone",
            whole,
            again,
            STAGES,
        )

        workers = copied(whole, "workers", {"train": {"workers": 2}})
        run(workers, "train")
        promised("training with 2 dataloader workers", "none", whole, workers, ["train"])

        resumed = copied(whole, "resumed")
        step = killed(resumed)
        if "resum" not in run(resumed, "train"):
            sys.exit("training did not go on from its resume point")
        promised(
            f"training killed after step {step} and resumed",
            "uninterrupted",
            whole,
            resumed,
            ["train"],
        )

        scorer = Scorer(whole)
        reference = scorer.scores(whole, "fp32", THREADS)
        for what, precision, threads in (
            ("scoring with 1 thread", "fp32", 1),
            ("scoring in bf16", "bf16", THREADS),
        ):
            row(
                what,
                f"{THREADS} threads, fp32",
                scorer.differences(reference, scorer.scores(whole, precision, threads)),
            )
        single = copied(whole, "single")
        run(single, "train", {"OMP_NUM_THREADS": "1"})
        found = scorer.differences(reference, scorer.scores(single, "fp32", THREADS))
        row("training with 1 thread", f"{THREADS} threads; both scored in fp32", found)

        fp32, bf16 = (
            copied(whole, name, {"train": {"epochs": SHORT, "precision": name}})
            for name in ("fp32", "bf16")
        )
        for folder in (fp32, bf16):
            run(folder, "train")
        found = scorer.differences(
            *(scorer.scores(folder, "fp32", THREADS) for folder in (fp32, bf16))
        )
        row(f"training in bf16, {SHORT:g} of an epoch", "fp32; both scored in fp32", found)

    seconds = time.monotonic() - begun
    print(f"\n{scorer.scored} scores of the test questions' candidates; {seconds:.0f} s")
    sys.exit(f"error: promised identical and are not: {', '.join(broken)}" if broken else 0)


def sliced(folder: Path) -> Path:
    """Create a project with the first questions of the bundled data and their passages."""
    raw = folder / "data/raw/slice"
    raw.mkdir(parents=True)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "models").mkdir()
    (folder / "models/bundled").symlink_to(ROOT / "models/bundled")
    rows = {name: read_table(ROOT / f"data/raw/yunshan/{name}.csv") for name in ("qa", "corpus")}
    asked = [
        row
        for split, count in SLICE.items()
        for row in [row for row in rows["qa"] if row["dataset"] == split][:count]
    ]
    passages = {row["uuid"] for row in asked}
    write_table(raw / "qa.csv", asked)
    write_table(raw / "corpus.csv", [row for row in rows["corpus"] if row["uuid"] in passages])
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader)
    values["prepare"]["raw"] = "data/raw/slice"
    if (ROOT / "models/retriever/config.json").exists():
        values["retriever"] |= {
            "source": "path",
            "path": str(ROOT / "models/retriever"),
            "repo": None,
            "revision": None,
        }
    write_parameters(folder, values, SMALLER)
    return folder


def read_table(path: Path) -> list[dict]:
    with open(path, encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def write_table(path: Path, rows: list[dict]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_parameters(folder: Path, values: dict, changes: dict) -> None:
    for group, changed in changes.items():
        values[group] |= changed
    path = folder / "params.yaml"
    path.unlink(missing_ok=True)  # it may be a link to the file of another project
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")


def copied(folder: Path, name: str, changes: dict | None = None) -> Path:
    """Copy a project and change its parameters.

    The files of the copy are hard links, because stages replace files and do not edit them.
    """
    target = folder.with_name(name)
    shutil.copytree(
        folder,
        target,
        copy_function=os.link,
        symlinks=True,
        ignore=shutil.ignore_patterns(".cache"),
    )
    values = yaml.load((target / "params.yaml").read_text(encoding="utf-8"), Loader)
    write_parameters(target, values, changes or {})
    return target


def start(folder: Path, stage: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    command = (
        STAGES[stage]["cmd"]
        .replace("${prepare.raw}", "data/raw/slice")
        .replace("${train.launcher}", "python")
        .split()
    )
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)} | (environment or {})
    streams = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "encoding": "utf-8",
        "errors": "replace",
    }
    return subprocess.Popen([sys.executable, *command[1:]], cwd=folder, env=environment, **streams)


def run(folder: Path, stage: str, environment: dict[str, str] | None = None) -> str:
    print(f"{folder.name}: {stage}", file=sys.stderr)
    process = start(folder, stage, environment)
    said = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{stage} failed in {folder}:\n{said}")
    return said


def killed(folder: Path) -> int:
    """Kill training as soon as it has saved a checkpoint; return the checkpoint's step."""
    process = start(folder, "train")
    while (
        not (points := list(folder.glob(".cache/train/**/trainer_state.json")))
        and process.poll() is None
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        sys.exit("training ended before it could be killed")
    return min(int(path.parent.name.split("-")[1]) for path in points)


def outputs(stage: str) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in STAGES[stage]["outs"]]


class Scorer:
    """Score the candidates of a project's test questions with its reranker, in this process."""

    def __init__(self, project: Path):
        self.params = load(project / "params.yaml")
        self.questions = read_questions(project / "data/prepared/test.jsonl")
        self.gold = {question["id"]: grades(question) for question in self.questions}
        self.candidates = read_by_id(
            project / "data/candidates/test.jsonl", "candidates", self.gold
        )
        self.corpus = read_passages(
            project / "data/prepared/corpus.jsonl", self.params.retrieve.title
        )
        self.scored = 0

    def scores(self, project: Path, precision: str, threads: int) -> dict[str, dict[str, float]]:
        torch.set_num_threads(threads)
        score = self.params.score
        model = CrossEncoder(
            project / "models/reranker", score.max_length, precision, score.batch_tokens
        )
        asked = candidate_task(self.questions, self.candidates, self.corpus, self.params)
        found = asked.score(model, f"{project.name}, {precision}, {threads} threads")[RANKED]
        self.scored = sum(map(len, found.values()))
        return found

    def differences(
        self, one: dict[str, dict[str, float]], other: dict[str, dict[str, float]]
    ) -> str:
        logit = max(abs(one[q][passage] - other[q][passage]) for q in one for passage in one[q])
        rankings = [
            {q: sorted(found, key=lambda p: -found[p]) for q, found in scores.items()}
            for scores in (one, other)
        ]
        moved = sum(rankings[0][q] != rankings[1][q] for q in one)
        before, after = (measure(self.gold, ranking, [1], 10) for ranking in rankings)
        changes = ", ".join(
            f"{name} {after[name] - before[name]:+.4f}" for name in ("hit@1", "MRR@10")
        )
        return f"logits differ by {logit:.2g} at most, {moved} of {len(one)} rankings; {changes}"


if __name__ == "__main__":
    main()
