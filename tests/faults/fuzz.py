"""Fuzz every reader of user input with coverage guidance (https://github.com/google/atheris).

    pip install --target .cache/atheris -r tests/faults/requirements.txt
    python tests/faults/fuzz.py --seconds 600

Each target runs for its share of the time in its own process and starts from small valid files.
Every input must give a result or an InputError of one line. Anything else is a finding, as is an
input that takes more than 20 seconds or 3 GB: it is saved under .cache/fuzz with its traceback, and
the exit code is 1.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRATCH = ROOT / ".cache/fuzz"
SEED = 20240811
sys.path[:0] = [str(ROOT / "src")]
sys.path.append(str(ROOT / ".cache/atheris"))

import atheris

INSTRUMENTED = [
    "tunerank.core",
    "tunerank.data",
    "tunerank.params",
]
with (
    contextlib.redirect_stderr(io.StringIO()),
    atheris.instrument_imports(
        include=[*INSTRUMENTED, "openpyxl", "yaml", "csv", "json", "zipfile"]
    ),
):
    import openpyxl
    import pyarrow as pa
    import pyarrow.parquet

    from tunerank.core.errors import InputError
    from tunerank.core.files import read_jsonl
    from tunerank.data.passages import SPLITS
    from tunerank.data.preparation.prepare import prepare
    from tunerank.data.questions import grades
    from tunerank.data.readers.tables import read_table
    from tunerank.params.data import Prepare
    from tunerank.params.load import load

ROWS = [
    {"uuid": "p1", "question": "甲？", "answer": "一", "doc": "一二三", "dataset": "train"},
    {"uuid": "p2", "question": "乙？", "answer": "", "doc": "四五六", "dataset": "test"},
]
CORPUS = b"\n\x1e\n"
"""The separator of the two tables in an input of `prepare`."""


def csv_of(*rows: dict) -> bytes:
    return "".join(
        ",".join(row) + "\n" for row in (rows[0].keys(), *(row.values() for row in rows))
    ).encode()


def parquet_of(*rows: dict) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), out)
    return out.getvalue()


def workbook(sheet: bytes | None = None) -> bytes:
    """Return a workbook with the rows, or with this XML as its sheet."""
    book, plain, out = openpyxl.Workbook(), io.BytesIO(), io.BytesIO()
    for row in (list(ROWS[0]), *(list(row.values()) for row in ROWS)):
        book.active.append(row)
    book.save(plain)
    if sheet is None:
        return plain.getvalue()
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, sheet if name == "xl/worksheets/sheet1.xml" else old.read(name))
    return out.getvalue()


def sheet_xml() -> bytes:
    with zipfile.ZipFile(io.BytesIO(workbook())) as archive:
        rows = archive.read("xl/worksheets/sheet1.xml")
    more = (
        b'<row r="9"><c r="B9" t="str"><f>A1</f><v>x</v></c>'
        b'<c r="C9" t="inlineStr"><is><t>y</t></is></c><c t="b"><v>1</v></c></row>'
    )
    return rows.replace(
        b"</sheetData>", more + b'</sheetData><mergeCells><mergeCell ref="A2:A3"/></mergeCells>'
    )


def read(suffix: str) -> Callable[[bytes], None]:
    path = SCRATCH / f"input-{os.getpid()}{suffix}"

    def target(data: bytes) -> None:
        # A mutated zip seldom gets further than a wrong checksum, so mutate the sheet's XML.
        if suffix == ".xlsx" and not data.startswith(b"PK"):
            data = workbook(data)
        path.write_bytes(data)
        for cell in read_table(path).to_numpy().ravel():
            cell.encode()

    return target


def prepare_tables(data: bytes) -> None:
    paths = [SCRATCH / f"input-{os.getpid()}-{name}.csv" for name in ("qa", "corpus")]
    tables = data.split(CORPUS, 1)
    for path, table in zip(paths, tables):
        path.write_bytes(table)
    settings = Prepare(
        raw="x",
        columns={},
        qa_types=[],
        unicode="NFKC",
        valid_fraction=0.2,
        test_fraction=0.3,
        split_seed=42,
    )
    qa = read_table(paths[0])
    made = prepare(qa, read_table(paths[1]) if len(tables) > 1 else None, settings)
    questions = [question for split in SPLITS for question in made.questions[split]]
    assert len({question["id"] for question in questions}) == len(questions)
    judged = [set(grades(question)) | set(question["negatives"]) for question in questions]
    assert sum(map(len, judged)) <= len(qa) - len(made.dropped)
    assert set().union(*judged) <= {passage["id"] for passage in made.passages}
    json.dumps([made.passages, questions], ensure_ascii=False).encode()


def from_file(suffix: str, reader: Callable[[Path], object]) -> Callable[[bytes], None]:
    path = SCRATCH / f"input-{os.getpid()}{suffix}"

    def target(data: bytes) -> None:
        path.write_bytes(data)
        reader(path)

    return target


JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "csv": (
        read(".csv"),
        [
            csv_of(*ROWS),
            csv_of(*ROWS).decode().encode("gb18030"),
            csv_of(*ROWS).decode().encode("utf-16"),
        ],
    ),
    "xlsx": (read(".xlsx"), [workbook(), sheet_xml()]),
    "jsonl": (
        read(".jsonl"),
        [JSONL, b'{"a": [1, {"b": null}], "c": NaN, "d": "\\ud83d\\ude00"}\n'],
    ),
    "parquet": (
        read(".parquet"),
        [
            parquet_of(*ROWS),
            parquet_of({"a": [{"b": 1}], "c": b"x", "d": 1.5}, {"a": [], "c": None, "d": 2.0}),
        ],
    ),
    "prepare": (
        prepare_tables,
        [
            csv_of(*ROWS),
            csv_of({"question": "a", "uuid": "1"}, {"question": "b", "uuid": "2"})
            + CORPUS
            + csv_of({"uuid": "1", "doc": "x"}, {"uuid": "2", "doc": "x"}),
        ],
    ),
    "read_jsonl": (
        from_file(".jsonl", lambda path: list(read_jsonl(path, ("question",)))),
        [JSONL],
    ),
    "params": (
        from_file(".yaml", load),
        [
            ROOT.joinpath("tests/params.yaml").read_bytes(),
            b"a: &a [1, 2]\nb: !!str *a\n<<: {c: 2024-08-11}\n",
        ],
    ),
}


def fuzz(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Run one target in this process, which ends when the target ends."""
    call, seeds = TARGETS[name]
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for content in seeds:
        (folder / "corpus" / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)

    def one(data: bytes) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                call(data)
        except InputError as error:
            if len(str(error).splitlines()) == 1:
                return
            found = error
        except Exception as error:
            found = error
        else:
            return
        frame = traceback.extract_tb(found.__traceback__)[-1]
        place = hashlib.sha256(
            f"{type(found).__name__}:{frame.filename}:{frame.lineno}".encode()
        ).hexdigest()[:12]
        if not (folder / f"finding-{place}").exists():
            (folder / f"finding-{place}").write_bytes(data)
            (folder / f"finding-{place}.txt").write_text(
                "".join(traceback.format_exception(found)), "utf-8", "backslashreplace"
            )

    limits = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        "-timeout=20",
        "-rss_limit_mb=3072",
        "-max_len=16384",
    ]
    atheris.Setup(
        [sys.argv[0], str(folder / "corpus"), f"-artifact_prefix={folder}/finding-", *limits], one
    )
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=int, default=600, help="of all targets together (default: 600)"
    )
    parser.add_argument(
        "--target", choices=TARGETS, action="append", help="only this one; may be given again"
    )
    parser.add_argument(
        "--one", nargs=4, metavar=("TARGET", "FOLDER", "SECONDS", "SEED"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    if options.one:
        name, folder, seconds, seed = options.one
        fuzz(name, Path(folder), int(seconds), int(seed))
    names = options.target or list(TARGETS)
    share, total = options.seconds // len(names), 0
    print("target      inputs  seconds  coverage  findings")
    for name in names:
        folder = SCRATCH / f"{name}-{time.time_ns()}"
        inputs = coverage = tries = 0
        start = time.monotonic()
        # A target ends at its first finding. Start it again while time is left.
        while (left := round(share - (time.monotonic() - start))) > 5:
            command = [
                sys.executable,
                __file__,
                "--one",
                name,
                str(folder),
                str(left),
                str(SEED + tries),
            ]
            done = subprocess.run(
                command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
            )
            seen = re.findall(r"#(\d+)\s", done.stderr) + re.findall(
                r"Done (\d+) runs", done.stderr
            )
            if not seen:
                sys.exit(f"error: {name} did not start: {done.stderr.strip()[-2000:]}")
            inputs += max(map(int, seen))
            coverage = max([coverage, *map(int, re.findall(r"cov: (\d+)", done.stderr))])
            tries += 1
        findings = sorted(path for path in folder.glob("finding-*") if path.suffix != ".txt")
        total += len(findings)
        print(
            f"{name:10s} {inputs:7d} {time.monotonic() - start:8.0f} {coverage:9d} "
            f"{len(findings):9d}",
            flush=True,
        )
        for path in findings:
            print(f"  {path}")
    for path in SCRATCH.glob("input-*"):
        path.unlink()
    sys.exit(bool(total))


if __name__ == "__main__":
    main()
