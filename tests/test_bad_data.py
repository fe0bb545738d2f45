"""Test broken and unusual input.

Each case has the one-line error for broken input, or the result for unusual but valid input.
tests/test_tables.py, tests/test_questions.py and tests/test_rank.py have more cases, which are not
repeated here.
"""

import base64
import datetime
import decimal
import io
import json
import os
import random
import re
import sys
import zipfile
import zlib
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import ROOT
from transformers import AutoTokenizer

from tunerank.core.errors import InputError
from tunerank.core.files import write_json, write_jsonl
from tunerank.data.passages import SPLITS
from tunerank.data.readers.tables import find_tables, read_table
from tunerank.params.load import load
from tunerank.training.tokens import TokenizedSamples

sys.path.insert(0, str(ROOT / "src"))
import baseline
import evaluate
import prepare
import pretrain
import retrieve
import samples
import score
import train
from tunerank.commands import rank
from tunerank.commands.app import call

HEADER = "question,doc,dataset\n"
GOOD = HEADER + "甲？,一,train\n乙？,二,test\n"


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(name, content):
    """Return a function that reads the table: row number -> cells, the header first."""

    def read(folder: Path) -> dict:
        path = folder / name
        content(path) if callable(content) else put(path, content)
        found = read_table(path)
        return {"": found.columns.tolist()} | {
            number: row.tolist() for number, row in zip(found.index, found.to_numpy())
        }

    return read


# xlsx


def book(*rows, then=None):
    def make(path: Path) -> None:
        workbook = openpyxl.Workbook()
        for row in rows:
            workbook.active.append(row)
        if then:
            then(workbook)
        workbook.save(path)

    return make


def sheet(xml: str, head: str = "", tail: str = "", **parts: str):
    """Return a function that writes a workbook with this XML as its sheet's data.

    `parts` replaces other parts of the workbook; the key is the stem of the part's file name.
    """
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'

    def make(path: Path) -> None:
        plain = io.BytesIO()
        openpyxl.Workbook().save(plain)
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                content = parts.get(Path(name).stem, old.read(name))
                if name == "xl/worksheets/sheet1.xml":
                    content = (
                        f"{head}<worksheet {main}><sheetData>{xml}</sheetData>{tail}</worksheet>"
                    )
                new.writestr(name, content)

    return make


def second_sheet(hide: bool):
    def change(workbook: openpyxl.Workbook) -> None:
        workbook.create_sheet("two").append(["question"])
        workbook["two"].append(["乙"])
        if hide:
            workbook.worksheets[0].sheet_state = "hidden"

    return change


def bomb(path: Path) -> None:
    """Write a workbook of 5 MB that unpacks to 1.2 GB of rows."""
    rows = b'<row r="2"><c r="A2"><v>1</v></c></row>' * 2**15
    sheet("")(path)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("xl/more.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(1200 * 2**20 // len(rows)):
            part.write(rows)


LAUGHS = (
    "<!DOCTYPE a [<!ENTITY b 'ha'>"
    + "".join(f"<!ENTITY b{n} '{f'&b{n - 1 if n else str()};' * 10}'>" for n in range(9))
    + "]>"
)
OUTSIDE = "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/hostname'>]>"
UNREADABLE = "t.xlsx: cannot be read as an Excel workbook ({}); open it and save it as xlsx again"
DOCTYPE = (
    "t.xlsx: declares a document type, which a workbook must not; open it and save it as xlsx again"
)
LIMITS = "t.xlsx: more than 1048576 rows, or 67108864 cells; save the sheet as csv"
MERGED = (["question", "doc"], ["甲", "一"], ["乙", None], ["丙", None], ["丁", "四"])

# parquet


def parquet(**columns):
    return lambda path: pyarrow.parquet.write_table(pa.table(columns), path)


def repeated_column(path: Path) -> None:
    pyarrow.parquet.write_table(
        pa.table([pa.array(["a"]), pa.array(["b"])], names=["q", "q "]), path
    )


def long_parquet(path: Path) -> None:
    """Write a file of a few kilobytes with one word in 70 million rows."""
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 2**20, pa.int32()), ["甲"])
    with pyarrow.parquet.ParquetWriter(path, pa.schema([("question", word.type)])) as writer:
        for _ in range(68):
            writer.write_table(pa.table({"question": word}))


NANOSECONDS = pa.array([1704067200000000001], pa.timestamp("ns"))
HISTOGRAM = base64.b85decode(
    (
        "c-noG&rcIU6vt<Fw`;3C0C6U>q=&}HghW8Lu>_1JOerlyP}&Fu!e!GoP*kY>VS^_QnrPA^2Ms2A@TeD0NH}=#;K{$h"
        "V~L3uZ=O6bZ`v+}u1<Dm-oE#p&zrY1y9*+16N4}knv(<SLnt_;A%u#y>LUb^K0=3NtcRGy42_{dtr%fi(eCY)f<PE#"
        "2FAK3C4*$BO}RX0%D~UPPrr}eg4Ou^T3Q}7v#DWbQ{h3Sq`ytQG^hjXU|06Y1E$LmLmrG9WW3Gj&jp%{#$mm2@Dd)5"
        "_xBrzd&kc|dLRRCkOkaH9vQ9>-p<fF>63v<$ti3ZVC2gc53o-Om;vE#p7k(_m|4zl<R3ZYA|k;7of*|?Avb{LLQs5g"
        "Kx6*LRXMq^z18V7ovm^$U+Q$}x$SJ{^M#yKamx8h%SR0>WUX-&B0(#P%pR+miD=ZI&oHfHKFR%Ociw_h5Yb>0dgO46"
        "`YqGq2<q(wxhqt#T}(e<{sZ$p?7j8fSmuds)!2r<!2FNKzi4NUKsU?uWWmc(pd(DbV*bY9-}L`&d^h*1C%65Q75f#Y"
        "?=b)F<8`0M-ghJWTqOPLqXzfW_a?GJEGW|HdzqWfbHVERb!a;xCWJ_dX1gOqO~lqkLWp%SwXS?IDVPUiN{CtII2~nM"
        "ly`g@tPSWAYEsROC*v~7xHP5{N)%J^Y2mgkI3KJmr#G^ZrBRUp{k2(Gn#!GaleF@w7Kd&%Ik72b?t{L3PQP+apH$9F"
        "^l2`#v?D9Yg5F+`9jr99sOq0l(v&-CN;wnu>hj%DCo@r1&iPHKCnaJjh$mtF@m4aosDJR(dS;evCzBGVQ<Qxhv2f8T"
        "$pc>*&K8TqPN}qA3qQ%1%JTS!BV!|@Beu0Bzqif{{gOYl1^Ev?0XiTlE&"
    )
)
"""A compressed parquet file with invalid statistics. Reading them made pyarrow end the process.
tests/faults/fuzz.py found it."""
DEEP = "[" * 200000 + "]" * 200000

# paths that are not files


def linked(name, target):
    def make(folder: Path) -> dict:
        (folder / name).symlink_to(target)
        return table(name, lambda path: None)(folder)

    return make


def pipe(folder: Path) -> dict:
    os.mkfifo(folder / "t.csv")
    return table("t.csv", lambda path: None)(folder)


def unreadable(folder: Path) -> dict:
    put(folder / "t.csv", GOOD).chmod(0)
    if os.access(folder / "t.csv", os.R_OK):
        pytest.skip("this user can read every file")
    return table("t.csv", lambda path: None)(folder)


def unreadable_folder(folder: Path) -> object:
    (folder / "raw").mkdir(mode=0)
    if os.access(folder / "raw", os.R_OK):
        pytest.skip("this user can read every folder")
    return find_tables(folder / "raw")


# stages


def prepare_from(raw: str, summary: str) -> None:
    values = Path("params.yaml").read_text(encoding="utf-8")
    put(Path("params.yaml"), re.sub("raw: .*", f"raw: {raw}", values))
    prepare.main("data", summary)


def prepared(content, corpus=None, then=None):
    """Return a function that runs prepare.py on a table, after a run on another table.

    It returns the passages, the questions by split with their relevant passages, and the dropped
    rows. A run that fails must change nothing.
    """

    def run(folder: Path) -> dict:
        put(folder / "first.csv", GOOD)
        prepare_from("first.csv", "metrics/data.json")
        before = tree(folder / "data") | tree(folder / "metrics")
        if callable(content):
            content(folder / "raw.csv")
        else:
            put(folder / "raw" / "qa.csv", content)
        if corpus is not None:
            put(folder / "raw" / "corpus.csv", corpus)
        try:
            prepare_from("raw" if not callable(content) else "raw.csv", "metrics/data.json")
        except InputError:
            assert tree(folder / "data") | tree(folder / "metrics") == before
            raise
        rows = {
            path.stem: [json.loads(line) for line in path.open(encoding="utf-8")]
            for path in (folder / "data").iterdir()
        }
        return {
            "passages": {row["id"]: row["text"] for row in rows["corpus"]},
            **{
                split: [
                    (row["question"], *[item["passage"] for item in row["relevant"]])
                    for row in rows[split]
                ]
                for split in ("train", "valid", "test")
                if rows[split]
            },
            **(
                {"dropped": [(row["row"], row["reason"]) for row in rows["dropped"]]}
                if rows["dropped"]
                else {}
            ),
        }

    return run


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


QUESTION = {
    "id": "q1",
    "question": "甲？",
    "relevant": [{"passage": "p1", "grade": 1, "context": "一", "answer": "一"}],
    "negatives": [],
    "qa_type": "",
    "row": 2,
}


def about(*passages: str) -> dict:
    """Return the question with these relevant passages."""
    (item,) = QUESTION["relevant"]
    return QUESTION | {"relevant": [item | {"passage": passage} for passage in passages]}


PASSAGES = [{"id": "p1", "text": "一甲"}, {"id": "p2", "text": "二乙"}]


def between(passages=PASSAGES, train=(QUESTION,), candidates=None, change=None):
    """Return a function that writes what prepare.py and retrieve.py write; `change` breaks it."""

    def make(folder: Path) -> None:
        write_jsonl(folder / "prepared/corpus.jsonl", passages)
        for split, rows in (("train", train), ("valid", ()), ("test", ())):
            write_jsonl(folder / f"prepared/{split}.jsonl", rows)
        listed = [
            {
                "passage": p["id"],
                "dense": 1,
                "bm25": 1,
                "dense_score": 0.5,
                "bm25_score": 1.0,
                "nearest": [0, len(p.get("text", ""))],
                "views": [[0, len(p.get("text", ""))]],
            }
            for p in passages
        ]
        found = (
            [{"id": row["id"], "candidates": listed} for row in train]
            if candidates is None
            else candidates
        )
        write_jsonl(folder / "candidates/train.jsonl", found)
        if change:
            change(folder)

    return make


def retrieved(broken):
    """Return a function that runs retrieve.py with BM25 only: the passages of each question."""

    def run(folder: Path) -> dict:
        broken(folder)
        put(folder / "out/kept", "")
        changed = load().retrieve.model_copy(update={"dense_weight": 0.0, "window": 0, "stride": 0})
        parameters = load().model_copy(update={"retrieve": changed})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retrieve, "load", lambda: parameters)
            return after(
                folder,
                lambda: retrieve.main("prepared", "none", "none", "out"),
                lambda row: (row["id"], [c["passage"] for c in row["candidates"]]),
            )

    return run


def sampled(broken):
    """Return a function that runs samples.py: the positives and negatives of each question."""

    def run(folder: Path) -> dict:
        broken(folder)
        put(folder / "out/kept", "")
        return after(
            folder,
            lambda: samples.main("prepared", "candidates", "none", "out", "samples.json"),
            lambda row: (row["query"], row["pos"], row["neg"]),
        )

    return run


def judged(stage, change):
    """Return a function that runs a stage on outputs of earlier stages, one of them changed.

    The stage must fail before it loads a model.
    """

    def run(folder: Path) -> None:
        asked = [QUESTION | {"id": f"q-{split}"} for split in SPLITS]
        between(train=asked)(folder)
        for name in ("prepared", "candidates"):
            rows = dict(
                zip(
                    SPLITS, (folder / name / "train.jsonl").read_text(encoding="utf-8").splitlines()
                )
            )
            for split, row in rows.items():
                put(folder / name / f"{split}.jsonl", row + "\n")
        for path in (
            "baseline/test.jsonl",
            "baseline/train.jsonl",
            "scores/test.jsonl",
            "scores/train.jsonl",
            "start/valid.jsonl",
        ):
            write_jsonl(
                folder / path,
                [
                    {
                        "id": f"q-{Path(path).stem}",
                        **dict.fromkeys(("scores", "whole"), {"p1": 1.0, "p2": 0.5, "p3": 0.0}),
                    }
                ],
            )
        for file, text in change.items():
            put(folder / file, text)
        stage()

    return run


def train_reads():
    params, prepared = load(), Path("prepared")
    train.read_validation(
        params,
        prepared / "corpus.jsonl",
        prepared / "valid.jsonl",
        Path("candidates/valid.jsonl"),
        Path("start/valid.jsonl"),
    )


def evaluate_reads():
    evaluate.main("prepared", "candidates", "baseline", "scores", "none", "out")


def baseline_reads():
    baseline.main("prepared", "candidates", "none", "none", "out")


def score_reads():
    score.main("prepared", "candidates", "baseline", "none", "out", "out.json")


def pretrain_reads():
    pretrain.main("prepared", "candidates", "none", "none", "out", "out", "out.json")


def after(folder: Path, stage, shown) -> list:
    try:
        stage()
    except InputError:
        assert tree(folder / "out") == {(folder / "out/kept").as_posix(): b""}
        raise
    return [shown(json.loads(line)) for line in (folder / "out/train.jsonl").open(encoding="utf-8")]


def tokenised(content):
    """Return a function that reads samples as train.py does, and returns their number."""

    def run(folder: Path) -> int:
        return len(
            TokenizedSamples(
                put(folder / "train.jsonl", content), TOKENIZER[0], 100, folder / "tokens"
            )
        )

    return run


TOKENIZER: list = []


@pytest.fixture(scope="module", autouse=True)
def tokenizer(tiny_model):
    TOKENIZER.append(AutoTokenizer.from_pretrained(tiny_model))


def ranked(name, content, *arguments, query="甲"):
    """Return a function that runs `tunerank rank` until it would load a model: the passages."""

    def run(folder: Path) -> object:
        if name:
            put(folder / name, content)
        if arguments:
            return call("rank", "none", query, *([name] if name else []), *arguments)
        return [
            (key, passage.title, passage.text)
            for passage, (key, _) in rank.read_passages([str(folder / name)]).items()
        ]

    return run


def spoken(content: bytes):
    def run(folder: Path) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
            return rank.read_passages(["-"])

    return run


def parameters(text):
    def run(folder: Path) -> object:
        return load(
            put(
                folder / "params.yaml",
                text(ROOT.joinpath("tests/params.yaml").read_text(encoding="utf-8")),
            )
        )

    return run


def over_a_folder(folder: Path) -> None:
    (folder / "metrics/data.json").mkdir(parents=True)
    put(folder / "metrics/data.json/kept", "")
    try:
        write_json(folder / "metrics/data.json", {})
    finally:
        assert (folder / "metrics/data.json/kept").exists() and len(
            list((folder / "metrics").iterdir())
        ) == 1


def under_a_file(folder: Path) -> None:
    put(folder / "data", "kept")
    put(folder / "raw.csv", GOOD)
    try:
        prepare_from("raw.csv", "data.json")
    finally:
        assert (folder / "data").read_text() == "kept"


CHINESE = "question,answer\n" + "云杉的笔记本电脑坏了，应该找谁维修？,请联系售后服务部门。\n" * 3
TRADITIONAL = (
    "question,answer\n" + "雲杉的筆記型電腦壞了，應該找誰維修？,請聯繫售後服務部門。\n" * 3
)
JAPANESE = (
    "question,answer\n"
    + "ノートパソコンが壊れたとき、だれに修理を頼みますか。,サービス部門です。\n" * 3
)
BOTH = ["question", "answer"]

CASES = {
    # encodings
    "utf-16 with a byte order mark": (
        table("t.csv", GOOD.encode("utf-16")),
        {"": ["question", "doc", "dataset"], 2: ["甲？", "一", "train"], 3: ["乙？", "二", "test"]},
    ),
    "utf-16 big-endian": (
        table("t.csv", b"\xfe\xff" + "q\n甲\n".encode("utf-16-be")),
        {"": ["q"], 2: ["甲"]},
    ),
    "utf-16 without a byte order mark": (
        table("t.csv", GOOD.encode("utf-16-le")),
        "t.csv, row 1: a NUL byte; is this a text file? If it is UTF-16, save it as UTF-8",
    ),
    "truncated utf-16": (
        table("t.csv", GOOD.encode("utf-16")[:-1]),
        "t.csv: starts as UTF-16 but is not valid UTF-16; save it as UTF-8",
    ),
    "utf-32": (
        table("t.csv", GOOD.encode("utf-32")),
        "t.csv, row 1: a NUL byte; is this a text file? If it is UTF-16, save it as UTF-8",
    ),
    "big5": (
        table("t.csv", TRADITIONAL.encode("big5")),
        "t.csv: not UTF-8, and hardly any Chinese when read as GB18030; "
        "it may be Big5: save it as UTF-8",
    ),
    "shift-jis": (
        table("t.csv", JAPANESE.encode("shift-jis")),
        "t.csv: not UTF-8, and hardly any Chinese when read as GB18030; "
        "it may be Shift-JIS: save it as UTF-8",
    ),
    "traditional chinese in gb18030": (
        table("t.csv", TRADITIONAL.encode("gb18030")),
        {
            "": BOTH,
            **{
                row: ["雲杉的筆記型電腦壞了，應該找誰維修？", "請聯繫售後服務部門。"]
                for row in (2, 3, 4)
            },
        },
    ),
    "gb18030 truncated within a character": (
        table("t.csv", CHINESE.encode("gb18030")[:-4]),
        "t.csv, row 4: bytes that are neither UTF-8 nor GB18030; "
        "save the table as UTF-8 and try again",
    ),
    "latin-1": (
        table("t.csv", "question,answer\nOù?,Là.\n".encode("latin-1")),
        "t.csv, row 2: bytes that are neither UTF-8 nor GB18030; "
        "save the table as UTF-8 and try again",
    ),
    "utf-16 in jsonl": (
        table("t.jsonl", '{"q": "甲"}\n'.encode("utf-16")),
        "t.jsonl, line 1: not UTF-8; save the file as UTF-8",
    ),
    "gb18030 in jsonl": (
        table("t.jsonl", '{"q": "x"}\n{"q": "甲乙"}\n'.encode("gb18030")),
        "t.jsonl, line 2: not UTF-8; save the file as UTF-8",
    ),
    "byte order mark in the middle": (
        table("t.csv", "\ufeffq,a\n甲,1\n\ufeff乙,2\n"),
        {"": ["q", "a"], 2: ["甲", "1"], 3: ["乙", "2"]},
    ),
    "two byte order marks": (
        table("t.csv", "\ufeff\ufeffquestion\n甲\n"),
        {"": ["question"], 2: ["甲"]},
    ),
    "byte order mark between jsonl files": (
        table("t.jsonl", '{"q": "甲"}\n\ufeff{"q": "乙"}\n'),
        {"": ["q"], 1: ["甲"], 2: ["乙"]},
    ),
    "only NUL bytes": (
        table("t.csv", b"\0" * 4096),
        "t.csv, row 1: a NUL byte; is this a text file? If it is UTF-16, save it as UTF-8",
    ),
    # csv
    "semicolons": (
        table("t.csv", "question;answer;doc\n甲？;一;1,5\n"),
        {"": ["question", "answer", "doc"], 2: ["甲？", "一", "1,5"]},
    ),
    "tabs": (
        table("t.csv", "question\tanswer\n甲？\t一\n"),
        {"": BOTH, 2: ["甲？", "一"]},
    ),
    "bars": (
        table("t.csv", "question|answer\n甲？|一\n"),
        {"": BOTH, 2: ["甲？", "一"]},
    ),
    "only carriage returns as line ends": (
        table("t.csv", "q,a\r甲,1\r乙,2\r"),
        {"": ["q", "a"], 2: ["甲", "1"], 3: ["乙", "2"]},
    ),
    "line ends of all kinds": (
        table("t.csv", "q,a\r\n甲,1\n乙,2\r丙,3"),
        {"": ["q", "a"], 2: ["甲", "1"], 3: ["乙", "2"], 4: ["丙", "3"]},
    ),
    "only a header": (table("t.csv", "question,answer\n"), "t.csv: the table has no rows"),
    "only white space": (table("t.csv", " \n\t\n\u3000\n"), "t.csv: the table has no rows"),
    "empty columns to the right": (
        table("t.csv", "q,a,,\n甲,1,,\n"),
        {"": ["q", "a"], 2: ["甲", "1"]},
    ),
    "two columns without a name": (
        table("t.csv", "q,,\n甲,1,2\n"),
        "t.csv, row 1: two columns without a name; name them, or delete their cells",
    ),
    "a cell of ten megabytes": (
        lambda folder: len(table("t.csv", f"q,a\n甲,{'长' * 3_500_000}\n")(folder)[2][1]),
        3_500_000,
    ),
    "html saved as csv": (
        table("t.csv", "<html>\n<body>a, b</body>\n</html>\n"),
        "t.csv, row 2: 2 cells where the header has 1; quote a cell that holds a comma",
    ),
    # numbers, dates, words
    "ids that look like numbers": (
        table("t.csv", "uuid\n007\n1.0\n1e5\n0x1F\nTrue\n"),
        {"": ["uuid"], 2: ["007"], 3: ["1.0"], 4: ["1e5"], 5: ["0x1F"], 6: ["True"]},
    ),
    "numbers in xlsx": (
        table("t.xlsx", book(["a", "b", "c", "d"], [7, "007", 1e5, 0.5])),
        {"": ["a", "b", "c", "d"], 2: ["7", "007", "100000", "0.5"]},
    ),
    "dates and booleans in xlsx": (
        table(
            "t.xlsx",
            book(["a", "b", "c"], [datetime.datetime(2024, 8, 11), True, datetime.time(9, 30)]),
        ),
        {"": ["a", "b", "c"], 2: ["2024-08-11 00:00:00", "True", "09:30:00"]},
    ),
    "numbers, dates and booleans in jsonl": (
        table("t.jsonl", '{"a": 1, "b": 1.0, "c": true, "d": "2024-08-11", "e": -0.0}\n'),
        {"": list("abcde"), 1: ["1", "1.0", "True", "2024-08-11", "-0.0"]},
    ),
    "numbers, dates and booleans as questions": (
        prepared(HEADER + "1,一,train\n2024-08-11,二,train\nTrue,三,test\n"),
        {
            "passages": {
                "51a75f4634dfa859": "一",
                "084b42f6e95e4e65": "二",
                "a4c3313deb180960": "三",
            },
            "train": [("1", "51a75f4634dfa859")],
            "valid": [("2024-08-11", "084b42f6e95e4e65")],
            "test": [("True", "a4c3313deb180960")],
        },
    ),
    # xlsx
    "a formula without a value": (
        table("t.xlsx", book(["q", "a"], ["甲", "=1+1"])),
        "t.xlsx, cell B2: a formula without a value; "
        "open the workbook in Excel or LibreOffice, and save it",
    ),
    "a formula with a value": (
        table(
            "t.xlsx",
            sheet(
                '<row><c t="str"><v>q</v></c></row><row><c '
                't="str"><f>"a"&amp;"b"</f><v>ab</v></c></row>'
            ),
        ),
        {"": ["q"], 2: ["ab"]},
    ),
    "a formula whose value is empty": (
        table(
            "t.xlsx",
            sheet(
                '<row><c t="str"><v>q</v></c><c t="str"><v>a</v></c></row><row><c '
                't="str"><f>""</f><v></v></c><c><v>1</v></c></row>'
            ),
        ),
        {"": ["q", "a"], 2: ["", "1"]},
    ),
    "an error in a cell": (
        table(
            "t.xlsx",
            sheet(
                '<row><c t="str"><v>q</v></c><c t="str"><v>a</v></c></row><row><c '
                't="e"><f>A9</f><v>#REF!</v></c><c><v>1</v></c></row>'
            ),
        ),
        {"": ["q", "a"], 2: ["", "1"]},
    ),
    "merged cells": (
        table("t.xlsx", book(*MERGED, then=lambda workbook: workbook.active.merge_cells("B2:B4"))),
        {
            "": ["question", "doc"],
            2: ["甲", "一"],
            3: ["乙", "一"],
            4: ["丙", "一"],
            5: ["丁", "四"],
        },
    ),
    "a merged title over the table": (
        table(
            "t.xlsx",
            book(
                ["问答", None],
                *MERGED[:2],
                then=lambda workbook: workbook.active.merge_cells("A1:B1"),
            ),
        ),
        {"": ["question", "doc"], 3: ["甲", "一"]},
    ),
    "merged to the end of the sheet": (
        table(
            "t.xlsx",
            sheet(
                '<row><c t="str"><v>q</v></c></row><row><c><v>1</v></c></row><row/>',
                tail="<mergeCells><mergeCell ref='A2:XFD1048576'/></mergeCells>",
            ),
        ),
        {"": ["q"], 2: ["1"]},
    ),
    "a hidden first sheet": (
        table("t.xlsx", book(["question"], ["甲"], then=second_sheet(hide=True))),
        {"": ["question"], 2: ["乙"]},
    ),
    "two sheets": (
        table("t.xlsx", book(["question"], ["甲"], then=second_sheet(hide=False))),
        {"": ["question"], 2: ["甲"]},
    ),
    "only a chart sheet": (
        table(
            "t.xlsx",
            book(
                then=lambda workbook: (
                    workbook.create_chartsheet(),
                    workbook.remove(workbook.worksheets[0]),
                )
            ),
        ),
        "t.xlsx: cannot be read as an Excel workbook ('list' object has no attribute 'find'); "
        "open it and save it as xlsx again",
    ),
    "a carriage return as Excel escapes it": (
        table("t.xlsx", book(["q"], ["甲_x000D_\n乙"])),
        {"": ["q"], 2: ["甲\r\n乙"]},
    ),
    "half a character as Excel escapes it": (
        table("t.xlsx", book(["q"], ["甲_xD83D_"])),
        {"": ["q"], 2: ["甲_xD83D_"]},
    ),
    "a zip bomb": (
        table("t.xlsx", bomb),
        "t.xlsx: unpacks to 1.2 GB, above the limit of 1 GB; save the sheet as csv",
    ),
    "two million rows": (table("t.xlsx", sheet("<row/>" * 2**21)), LIMITS),
    "a cell in the last column of every row": (
        table(
            "t.xlsx",
            sheet(
                "".join(f'<row r="{n}"><c r="XFD{n}"><v>1</v></c></row>' for n in range(1, 5000))
            ),
        ),
        LIMITS,
    ),
    "a row far below": (
        table("t.xlsx", sheet('<row r="1000000000"><c><v>1</v></c></row>')),
        LIMITS,
    ),
    "a column far to the right": (
        table("t.xlsx", sheet('<row><c r="ZZZZZZ1"><v>1</v></c></row>')),
        "t.xlsx: cannot be read as an Excel workbook ('ZZZZZZ' is not a valid column name. Column "
        "names are from A to ZZZ); open it and save it as xlsx again",
    ),
    "billion laughs": (
        table("t.xlsx", sheet("<row><c t='str'><v>&b8;</v></c></row>", head=LAUGHS)),
        DOCTYPE,
    ),
    "billion laughs in another part": (
        table("t.xlsx", sheet("", styles=LAUGHS + "<styleSheet>&b8;</styleSheet>")),
        DOCTYPE,
    ),
    "an entity that names a file": (
        table("t.xlsx", sheet("<row><c t='str'><v>&b;</v></c></row>", head=OUTSIDE)),
        DOCTYPE,
    ),
    "a truncated sheet": (
        table("t.xlsx", sheet("<row><c")),
        "t.xlsx: cannot be read as an Excel workbook (not well-formed (invalid token): "
        "line 1, column 95); open it and save it as xlsx again",
    ),
    "an encrypted workbook": (
        table("t.xlsx", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(4096)),
        "t.xlsx: an old or a password-protected workbook; save it as xlsx without a password",
    ),
    "a csv named xlsx": (table("t.xlsx", GOOD), UNREADABLE.format("File is not a zip file")),
    "an empty workbook": (table("t.xlsx", b""), UNREADABLE.format("File is not a zip file")),
    # jsonl
    "nan and infinity": (
        table("t.jsonl", '{"q": NaN, "a": Infinity}\n'),
        {"": ["q", "a"], 1: ["", "inf"]},
    ),
    "nested too deep": (
        table("t.jsonl", f'{{"q": {DEEP}}}\n'),
        "t.jsonl, line 1: nested too deep; repair or delete the line",
    ),
    "half a character": (
        table("t.jsonl", '{"q": "x"}\n{"q": "\\ud83d"}\n'),
        "t.jsonl, line 2: half a character (an escaped surrogate alone); repair or delete the line",
    ),
    "half a character in a name": (
        table("t.jsonl", '{"\\ud83d": "x"}\n'),
        "t.jsonl, line 1: half a character (an escaped surrogate alone); repair or delete the line",
    ),
    "a whole character in two escapes": (
        table("t.jsonl", '{"q": "\\ud83d\\ude00"}\n'),
        {"": ["q"], 1: ["😀"]},
    ),
    "a number of five thousand digits": (
        table("t.jsonl", f'{{"q": {"9" * 5000}}}\n'),
        "t.jsonl, line 1: a number that is too long; repair or delete the line",
    ),
    "a name twice": (
        table("t.jsonl", '{"q": "x"}\n{"q": "x", "q ": "y"}\n'),
        "t.jsonl, line 2: 'q' appears twice; rename one",
    ),
    "an array of rows": (
        table("t.jsonl", '[{"q": "x"},\n {"q": "y"}]\n'),
        "t.jsonl: a JSON document, but jsonl has one object in each line; convert it",
    ),
    "two objects in a line": (
        table("t.jsonl", '{"q": "x"} {"q": "y"}\n'),
        "t.jsonl, line 1: not valid JSON (Extra data); repair or delete the line",
    ),
    "a json file over several lines": (
        table("t.jsonl", '{\n"q": "x"\n}\n'),
        "t.jsonl: a JSON document, but jsonl has one object in each line; convert it",
    ),
    "truncated in the last line": (
        table("t.jsonl", '{"q": "x"}\n{"q": "y'),
        "t.jsonl, line 2: not valid JSON (Unterminated string starting at); "
        "repair or delete the line",
    ),
    "objects without names": (table("t.jsonl", "{}\n{}\n"), "t.jsonl: the table has no rows"),
    "another name in every line": (
        table("t.jsonl", "".join(f'{{"n{n}": 1}}\n' for n in range(8200))),
        "t.jsonl: 8200 rows of 8200 columns, more than 67108864 cells; "
        "leave out columns, or cut the table",
    ),
    # parquet
    "nested columns": (
        table(
            "t.parquet",
            parquet(a=[{"b": [1, {"c": datetime.date(2024, 8, 11)}["c"].day]}], d=[[b"x"]]),
        ),
        {"": ["a", "d"], 1: ['{"b": [1, 11]}', "x"]},
    ),
    "dates, decimals and bytes": (
        table(
            "t.parquet",
            parquet(
                a=[decimal.Decimal("1.50")],
                b=[datetime.datetime(2024, 8, 11)],
                c=["甲".encode()],
                d=[[datetime.date(2024, 8, 11)]],
            ),
        ),
        {"": ["a", "b", "c", "d"], 1: ["1.50", "2024-08-11 00:00:00", "甲", '["2024-08-11"]']},
    ),
    "nanoseconds": (
        table("t.parquet", parquet(a=NANOSECONDS)),
        {"": ["a"], 1: ["2024-01-01 00:00:00.000000001"]},
    ),
    "bytes that are not text": (
        table("t.parquet", parquet(a=[b"\xff\xfe"])),
        "t.parquet: a column of bytes that are not UTF-8 text; leave it out, or store it as text",
    ),
    "a year beyond all dates": (
        table("t.parquet", parquet(a=pa.array([10**15], pa.timestamp("s")))),
        "t.parquet: cannot be read as parquet (Python int too large to convert to C int)",
    ),
    "a column twice": (
        table("t.parquet", repeated_column),
        "t.parquet, header: column 'q' appears twice; rename one",
    ),
    "no column": (table("t.parquet", parquet()), "t.parquet: the table has no rows"),
    "a truncated parquet file": (
        lambda folder: (
            parquet(a=["x"])(folder / "a.parquet"),
            table("t.parquet", (folder / "a.parquet").read_bytes()[:-9])(folder),
        ),
        "t.parquet: cannot be read as parquet (Parquet magic bytes not found in footer. Either "
        "the file is corrupted or this is not a parquet file.)",
    ),
    "statistics that are too long": (
        table("t.parquet", zlib.decompress(HISTOGRAM)),
        "t.parquet: cannot be read as parquet (Definition level histogram size mismatch, size: "
        "2, expected: 1)",
    ),
    "seventy million rows in a small file": (
        table("t.parquet", long_parquet),
        "t.parquet: 71303168 rows of 1 columns, more than 67108864 cells; "
        "leave out columns, or cut the table",
    ),
    # paths that are not files
    "a link to nothing": (
        linked("t.csv", "gone.csv"),
        "t.csv: a link to gone.csv, which does not exist; correct the link",
    ),
    "a link to itself": (
        linked("t.csv", "t.csv"),
        "t.csv: cannot be opened (Too many levels of symbolic links)",
    ),
    "a link to a device": (
        linked("t.csv", "/dev/zero"),
        "t.csv: is a pipe or a device, not a file; save its output as a file",
    ),
    "a pipe": (pipe, "t.csv: is a pipe or a device, not a file; save its output as a file"),
    "no permission": (unreadable, "t.csv: cannot be opened (no permission); make it readable"),
    "no permission for the folder": (
        unreadable_folder,
        "raw: cannot be opened (Permission denied)",
    ),
    "a file in place of a folder": (
        lambda folder: read_table(put(folder / "a.csv", GOOD) / "qa.csv"),
        "a.csv/qa.csv: cannot be opened (Not a directory)",
    ),
    "a line break in the name": (
        lambda folder: read_table(put(folder / "a\nb.csv", GOOD)),
        "'a\\nb.csv': a line break or another control character in the name; rename it",
    ),
    "a name too long": (
        lambda folder: read_table(folder / ("a" * 300 + ".csv")),
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.csv: cannot be opened (File name too long)",
    ),
    "a folder named as the questions": (
        lambda folder: (
            (folder / "raw/qa.csv").mkdir(parents=True),
            read_table(find_tables(folder / "raw")[0]),
        ),
        "raw/qa.csv: is a folder, not a file",
    ),
    "a folder where a file is to be written": (
        over_a_folder,
        "metrics/data.json: is a folder, which is not replaced; move it away",
    ),
    "a file where a folder is to be written": (
        under_a_file,
        "data: is a file, which is not replaced; move it away",
    ),
    # questions and passages
    "zero-width characters": (
        prepared(
            HEADER + "甲\u200b？,一,train\n\u2060甲？\u200e,一,test\n乙\ufeff？,二\u00ad二,train\n"
        ),
        {
            "passages": {"51a75f4634dfa859": "一", "80abb18e6de810e7": "二二"},
            "train": [("乙？", "80abb18e6de810e7")],
            "test": [("甲？", "51a75f4634dfa859")],
            "dropped": [(2, "repeated question (row 3)")],
        },
    ),
    "right to left": (
        prepared(HEADER + "\u202bשלום?\u202c,\u2067عربي\u2069,train\nمی\u200cخواهم?,二,test\n"),
        {
            "passages": {"9f9a680f547cc4d1": "عربي", "084b42f6e95e4e65": "二"},
            "train": [("שלום?", "9f9a680f547cc4d1")],
            "test": [("می\u200cخواهم?", "084b42f6e95e4e65")],
        },
    ),
    "emoji": (
        prepared(HEADER + "👩‍👩‍👧 是谁？,一,train\n🇨🇳?,❤️,test\n"),
        {
            "passages": {"51a75f4634dfa859": "一", "16e81418a36c5899": "❤️"},
            "train": [("👩\u200d👩\u200d👧 是谁？", "51a75f4634dfa859")],
            "test": [("🇨🇳?", "16e81418a36c5899")],
        },
    ),
    "only English": (
        prepared(HEADER + "Who repairs it?,Ask Anna.,train\nHow long?,Two years.,test\n"),
        {
            "passages": {"cad60b7a307c1c9c": "Ask Anna.", "4c6983683f465b70": "Two years."},
            "train": [("Who repairs it?", "cad60b7a307c1c9c")],
            "test": [("How long?", "4c6983683f465b70")],
        },
    ),
    "only punctuation": (
        prepared(HEADER + "？,。,train\n！,…,test\n"),
        {
            "passages": {"eb0d5884569b398e": "。", "b4935894c8ce16bd": "…"},
            "train": [("？", "eb0d5884569b398e")],
            "test": [("！", "b4935894c8ce16bd")],
        },
    ),
    "a question with two passages, one of them named twice": (
        prepared(HEADER + "甲？,一,train\n甲？,二,train\n甲\u200b？, 二,train\n乙？,三,test\n"),
        {
            "passages": {
                "51a75f4634dfa859": "一",
                "084b42f6e95e4e65": "二",
                "a4c3313deb180960": "三",
            },
            "train": [("甲？", "51a75f4634dfa859", "084b42f6e95e4e65")],
            "test": [("乙？", "a4c3313deb180960")],
            "dropped": [(4, "repeated question (row 3)")],
        },
    ),
    "no right passage": (
        prepared("question,doc,label\n甲？,一,0\n乙？,二,0\n"),
        "raw/qa.csv: no train question is left of 2 rows; all were dropped: no relevant passage "
        "(2); a right passage has the label 1 or more, a wrong one 0; correct column 'label'",
    ),
    "a label that is half a grade": (
        prepared("question,doc,label\n甲？,一,1\n乙？,二,0.5\n"),
        "raw/qa.csv, row 3: label '0.5' is neither 0 nor 1 nor a higher grade; correct it, or "
        "rename the column if it does not say whether the passage is right",
    ),
    "one id for two questions": (
        prepared("query_id,question,doc,dataset\n1,甲？,一,train\n1,乙？,二,test\n"),
        "raw/qa.csv, row 3: the question's id '1' is that of row 2 too; give each question a "
        "query_id of its own, or rename that column if it does not name questions",
    ),
    "one question": (
        prepared(HEADER + "甲？,一,train\n"),
        "raw/qa.csv: no test question is left of 1 rows; "
        "name some in column 'dataset', or leave that column out and set prepare.test_fraction",
    ),
    "no question": (
        prepared(HEADER + ",一,train\n,二,test\n"),
        "raw/qa.csv: no train question is left of 2 rows; all were dropped: empty question (2); "
        "correct the table or the parameters of prepare",
    ),
    "one passage": (
        prepared(HEADER + "甲？,一,train\n乙？,一,test\n"),
        {
            "passages": {"51a75f4634dfa859": "一"},
            "train": [("甲？", "51a75f4634dfa859")],
            "test": [("乙？", "51a75f4634dfa859")],
        },
    ),
    "an empty corpus": (
        prepared("question,uuid,dataset\n甲？,p1,train\n乙？,p1,test\n", "uuid,doc\n"),
        "raw/corpus.csv: the table has no rows",
    ),
    "a corpus without ids": (
        prepared("question,uuid,dataset\n甲？,p1,train\n", "doc\n一\n"),
        "raw/corpus.csv: no column 'uuid' among 'doc'; "
        "rename it there, or map it in prepare.columns",
    ),
    "one text under two ids": (
        prepared(
            "question,uuid,dataset\n甲？,b,train\n乙？,a,test\n丙？,c,test\n",
            "uuid,doc\nb,一\na,一\nc,三\n",
        ),
        {
            "passages": {"a": "一", "c": "三"},
            "train": [("甲？", "a")],
            "test": [("乙？", "a"), ("丙？", "c")],
        },
    ),
    "one text under two titles": (
        prepared(
            "question,uuid,dataset\n甲？,b,train\n乙？,a,test\n", "uuid,doc,title\nb,一,B\na,一,A\n"
        ),
        {"passages": {"b": "一", "a": "一"}, "train": [("甲？", "b")], "test": [("乙？", "a")]},
    ),
    "an id with zeros in only one table": (
        prepared("question,uuid,dataset\n甲？,7,train\n", "uuid,doc\n007,一\n"),
        "raw/qa.csv, row 2: passage '7' is not in the corpus, which has '007'; "
        "write the id alike in both tables",
    ),
    "a column of the corpus with an internal name": (
        prepared(
            "question,uuid,dataset\n甲？,a,train\n乙？,a,test\n",
            "uuid,doc,stands_in,id\na,一,yes,z\na,一,no,y\n",
        ),
        {"passages": {"a": "一"}, "train": [("甲？", "a")], "test": [("乙？", "a")]},
    ),
    # later stages
    "retrieve: no passage": (
        retrieved(between(passages=[])),
        "prepared/corpus.jsonl: no passages; check the table in prepare.raw",
    ),
    "retrieve: one passage": (retrieved(between(passages=PASSAGES[:1])), [("q1", ["p1"])]),
    "retrieve: only punctuation": (
        retrieved(
            between(passages=[{"id": "p1", "text": "。"}], train=[QUESTION | {"question": "？"}])
        ),
        [("q1", ["p1"])],
    ),
    "retrieve: a missing passage": (
        retrieved(between(train=[about("p9")])),
        "prepared/train.jsonl: question 'q1' is about passage 'p9', which is not in corpus.jsonl; "
        "run dvc repro prepare --force",
    ),
    "retrieve: a missing second passage": (
        retrieved(between(train=[about("p1", "p9")])),
        "prepared/train.jsonl: question 'q1' is about passage 'p9', which is not in corpus.jsonl; "
        "run dvc repro prepare --force",
    ),
    "retrieve: a passage without text": (
        retrieved(between(passages=[{"id": "p1"}])),
        "prepared/corpus.jsonl, line 1: no 'text'; rerun the stage that writes it",
    ),
    "retrieve: no file": (retrieved(lambda folder: None), "prepared/corpus.jsonl: no such file"),
    "retrieve: half a file": (
        retrieved(
            between(change=lambda folder: put(folder / "prepared/test.jsonl", '{"id": "q2", "ques'))
        ),
        "prepared/test.jsonl, line 1: not valid JSON (Unterminated string starting at); "
        "repair or delete the line",
    ),
    "samples: one question": (sampled(between()), [("甲？", ["一甲"], ["二乙"])]),
    "samples: no question": (
        sampled(between(train=[])),
        "samples: no negative is left for any training question; loosen samples.absolute_margin, "
        "samples.relative_margin and samples.teacher_margin, or add passages",
    ),
    "samples: one passage": (
        sampled(between(passages=PASSAGES[:1])),
        "samples: no negative is left for any training question; loosen samples.absolute_margin, "
        "samples.relative_margin and samples.teacher_margin, or add passages",
    ),
    "samples: every passage has one text": (
        sampled(between(passages=[{"id": key, "text": "一甲"} for key in ("p1", "p2", "p3")])),
        "samples: no negative is left for any training question; loosen samples.absolute_margin, "
        "samples.relative_margin and samples.teacher_margin, or add passages",
    ),
    "samples: no candidates": (
        sampled(between(candidates=[])),
        "candidates/train.jsonl: candidates of no question where prepared/train.jsonl has q1; "
        "run dvc repro retrieve --force",
    ),
    "samples: candidates of another question": (
        sampled(between(candidates=[{"id": "q9", "candidates": []}])),
        "candidates/train.jsonl: candidates of q9 where prepared/train.jsonl has q1; "
        "run dvc repro retrieve --force",
    ),
    "samples: candidates of an extra question": (
        sampled(between(train=[], candidates=[{"id": "q9", "candidates": []}])),
        "candidates/train.jsonl: candidates of q9 where prepared/train.jsonl has no question; "
        "run dvc repro retrieve --force",
    ),
    "samples: its own passage is not a candidate": (
        sampled(between(candidates=[{"id": "q1", "candidates": [{"passage": "p2"}]}])),
        "candidates/train.jsonl: passage 'p1' is not a candidate of its own question q1; "
        "run dvc repro retrieve --force",
    ),
    "samples: a candidate that is not in the corpus": (
        sampled(
            between(candidates=[{"id": "q1", "candidates": [{"passage": "p1"}, {"passage": "p9"}]}])
        ),
        "candidates/train.jsonl: candidate 'p9' of q1 is not in corpus.jsonl; "
        "run dvc repro retrieve --force",
    ),
    "train: no sample": (tokenised(""), "train.jsonl: no samples; rerun the stage that writes it"),
    "train: a sample without negatives": (
        tokenised('{"query": "甲？", "pos": ["一"], "neg": []}\n'),
        "train.jsonl: the sample of '甲？' has no 'neg'; "
        "a group needs a positive and a negative, add one or remove the sample",
    ),
    "train: a sample without a query": (
        tokenised('{"pos": ["一"], "neg": ["二"]}\n'),
        "train.jsonl, line 1: no 'query'; rerun the stage that writes it",
    ),
    "train: no scores of a question": (
        judged(train_reads, {"start/valid.jsonl": ""}),
        "start/valid.jsonl: no scores of 'q-valid'; rerun the stage that writes it",
    ),
    "train: a candidate that is not in the corpus": (
        judged(train_reads, {"prepared/corpus.jsonl": '{"id": "p1", "text": "一甲"}\n'}),
        "candidate 'p2' of 'q-valid' is not in corpus.jsonl; run dvc repro retrieve --force",
    ),
    "pretrain: a question without its passages": (
        judged(pretrain_reads, {"prepared/valid.jsonl": '{"id": "q-valid", "question": "甲？"}\n'}),
        "prepared/valid.jsonl, line 1: no 'relevant'; rerun the stage that writes it",
    ),
    "pretrain: half a file": (
        judged(pretrain_reads, {"candidates/valid.jsonl": '{"id": "q-valid", "cand'}),
        "candidates/valid.jsonl, line 1: not valid JSON (Unterminated string starting at); "
        "repair or delete the line",
    ),
    "baseline: no candidates of a question": (
        judged(baseline_reads, {"candidates/test.jsonl": '{"id": "q9", "candidates": []}\n'}),
        "candidates/test.jsonl: no candidates of 'q-test'; rerun the stage that writes it",
    ),
    "baseline: no question": (
        judged(baseline_reads, {"prepared/test.jsonl": ""}),
        "prepared/test.jsonl: there is no question to rank; "
        "set score.split to another split, or prepare.valid_fraction above 0",
    ),
    "baseline: an empty question": (
        judged(baseline_reads, {"prepared/train.jsonl": "{}\n"}),
        "prepared/train.jsonl, line 1: no 'id'; rerun the stage that writes it",
    ),
    "score: no candidates of a question": (
        judged(score_reads, {"candidates/test.jsonl": '{"id": "q9", "candidates": []}\n'}),
        "candidates/test.jsonl: no candidates of 'q-test'; rerun the stage that writes it",
    ),
    "score: truncated scores of the base": (
        judged(score_reads, {"baseline/train.jsonl": '{"id": "q-train", "sco'}),
        "baseline/train.jsonl, line 1: not valid JSON (Unterminated string starting at); "
        "repair or delete the line",
    ),
    "evaluate: no scores of a question": (
        judged(evaluate_reads, {"scores/test.jsonl": ""}),
        "scores/test.jsonl: no scores of 'q-test'; rerun the stage that writes it",
    ),
    "evaluate: scores under another name": (
        judged(evaluate_reads, {"baseline/test.jsonl": '{"id": "q-test", "logits": {}}\n'}),
        "baseline/test.jsonl, line 1: no 'scores'; rerun the stage that writes it",
    ),
    "evaluate: no scores of a label": (
        judged(evaluate_reads, {"baseline/train.jsonl": ""}),
        "baseline/train.jsonl: no scores of 'q-train'; rerun the stage that writes it",
    ),
    # tunerank rank
    "rank: random bytes as text": (
        ranked("a.txt", random.Random(1).randbytes(999)),
        "a.txt, row 1: a NUL byte; is this a text file? If it is UTF-16, save it as UTF-8",
    ),
    "rank: utf-16 as text": (
        ranked("a.txt", "一\n二\n".encode("utf-16")),
        [("a.txt:1", "", "一"), ("a.txt:2", "", "二")],
    ),
    "rank: a broken table": (
        ranked("a.jsonl", '{"doc": "一"}\n{"doc"\n'),
        "a.jsonl, line 2: not valid JSON (Expecting ':' delimiter); repair or delete the line",
    ),
    "rank: rows without text": (ranked("a.csv", "uuid,doc\n1,一\n2,\n"), [("1", "", "一")]),
    "rank: a folder": (
        lambda folder: ((folder / "a.csv").mkdir(), rank.read_passages([str(folder / "a.csv")])),
        "a.csv: is a folder, not a file",
    ),
    "rank: a query that is not text": (
        ranked("a.txt", "一", "--json", query="\udcff"),
        "query: not UTF-8",
    ),
    "rank: standard input that is not text": (
        spoken(b"\xff\xfe"),
        "standard input: not UTF-8; give a file, or convert it",
    ),
    # params.yaml
    "params: a list": (
        parameters(lambda text: "- 1\n"),
        "params.yaml: Input should be a valid dictionary or instance of Params, got [1]",
    ),
    "params: empty": (
        parameters(lambda text: ""),
        "params.yaml: Input should be a valid dictionary or instance of Params, got None",
    ),
    "params: nested too deep": (
        parameters(lambda text: "[" * 1500),
        "params.yaml: not valid YAML: nested too deep",
    ),
    "params: gb18030": (
        parameters(lambda text: "seed: 甲".encode("gb18030")),
        "params.yaml: not UTF-8; save it as UTF-8",
    ),
    "params: a date that does not exist": (
        parameters(lambda text: "seed: 2024-13-45\n"),
        "params.yaml: not valid YAML: month must be in 1..12",
    ),
    "params: aliases of aliases": (
        parameters(
            lambda text: (
                "a: &a [x, x]\n"
                + "".join(
                    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n"
                    for n in range(25)
                )
                + "seed: *z\n"
            )
        ),
        "params.yaml: seed: Input should be a valid integer, got [[...], [...]]",
    ),
    "params: merges of merges": (
        parameters(
            lambda text: (
                "a: &a {x: 1}\n"
                + "".join(
                    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [*{chr(97 + n)}, *{chr(97 + n)}]}}\n"
                    for n in range(25)
                )
            )
        ),
        "params.yaml: seed: Field required",
    ),
    "params: an object": (
        parameters(lambda text: "seed: !!python/object/apply:os.getcwd []\n"),
        "params.yaml: not valid YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.getcwd' in \"<unicode string>\", line 1, "
        "column 7: seed: !!python/object/apply:os.getcwd [] ^",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_broken_input_is_refused_in_one_line_and_unusual_input_is_read(name, tmp_path, monkeypatch):
    call, expected = CASES[name]
    put(tmp_path / "params.yaml", ROOT.joinpath("tests/params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    if not isinstance(expected, str):
        assert call(tmp_path) == expected
        return
    with pytest.raises(InputError) as error:
        call(tmp_path)
    assert str(error.value).replace(f"{tmp_path}/", "") == expected
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name, said",
    [
        ("utf-16 with a byte order mark", "t.csv: read as UTF-16 (it is not UTF-8)"),
        (
            "merged cells",
            "t.xlsx: 1 merged cells: their value is used for every row they cover",
        ),
        ("two sheets", "t.xlsx: sheet 'Sheet' is read, not 'two'"),
        ("one text under two ids", "passage 'b' has the same text as 'a': merged into 'a'"),
    ],
)
def test_what_is_done_with_unusual_input_is_reported(name, said, tmp_path, monkeypatch, capsys):
    put(tmp_path / "params.yaml", ROOT.joinpath("tests/params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    CASES[name][0](tmp_path)
    assert said in capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()
