"""Tables as programs and people leave them: read as a person would, or refused in one line."""

import datetime
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import ENVIRONMENT, ROOT, copy_project, git

from tunerank.commands import rank
from tunerank.core.errors import InputError
from tunerank.core.inputs import IGNORED, files_in
from tunerank.data.readers.number_formats import shown
from tunerank.data.readers.tables import find_tables, read_table, refuse_nested
from tunerank.data.readers.text import decode


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Path) -> list[list[str]]:
    """The header, then the rows."""
    table = read_table(path)
    return [table.columns.tolist(), *table.to_numpy().tolist()]


def refusal(path: Path, *columns: str) -> str:
    """The message about the table, or about its columns that are used, after the path."""
    with pytest.raises(InputError) as error:
        refuse_nested(read_table(path), columns, path)
    message = str(error.value)
    assert message.startswith(f"{path}") and len(message.splitlines()) == 1
    return message.removeprefix(f"{path}")


# lists and objects


LISTED = {"query": "问题？", "pos": ["甲。", "乙。"], "neg": ["丙。"], "meta": {"a": 1}}


def jsonl(folder: Path, *objects: dict) -> Path:
    lines = [json.dumps(each, ensure_ascii=False) for each in objects]
    return put(folder / "t.jsonl", "\n".join(lines))


def parquet(folder: Path, *objects: dict) -> Path:
    pyarrow.parquet.write_table(pa.Table.from_pylist([*objects]), folder / "t.parquet")
    return folder / "t.parquet"


@pytest.mark.parametrize("write, where", [(jsonl, "line 2"), (parquet, "row 2")])
def test_a_list_or_an_object_is_no_text(tmp_path, write, where):
    path = write(tmp_path, LISTED | {"pos": ["丁。"]}, LISTED)
    refuse_nested(read_table(path), ("query", "neg", "title"), path)
    assert read_table(path)["neg"].tolist() == ["丙。", "丙。"]
    assert read_table(path)["pos"].iloc[0] == "丁。"
    assert refusal(path, "query", "pos") == (
        f", {where}, column 'pos': a list of 2 values; one row for each value is needed"
    )
    assert refusal(path, "meta").endswith(", column 'meta': an object; a text or null is needed")


@pytest.mark.parametrize(
    "value, found",
    [
        ([], "a list of 0 values; a text or null is needed"),
        ([1], "a list of 1 value; a text or null is needed"),
        ([["甲"]], "a list of 1 value; a text or null is needed"),
        ([None, "甲"], "a list of 2 values; one row for each value is needed"),
        ({}, "an object; a text or null is needed"),
    ],
)
def test_other_lists_are_refused_too(tmp_path, value, found):
    assert refusal(jsonl(tmp_path, {"doc": value}), "doc") == f", line 1, column 'doc': {found}"


def test_a_list_of_one_text_of_bytes_is_that_text(tmp_path):
    assert rows(parquet(tmp_path, {"doc": ["甲 ".encode()]})) == [["doc"], ["甲"]]


@pytest.mark.parametrize("column", ["doc", "title", "uuid", "id"])
def test_rank_refuses_lists_in_the_columns_that_it_uses(tmp_path, column):
    path = jsonl(tmp_path, {"doc": "甲", "other": ["a", "b"]}, {"doc": "乙", column: ["a", "b"]})
    with pytest.raises(InputError) as error:
        rank.read_passages([str(path)])
    assert str(error.value) == (
        f"{path}, line 2, column {column!r}: a list of 2 values; one row for each value is needed"
    )


def test_rank_reads_columns_that_it_does_not_use_as_they_are(tmp_path):
    path = jsonl(tmp_path, LISTED | {"text": ["甲。"], "title": "一", "id": 7})
    found = rank.read_passages([str(path)]).items()
    assert [(key, each.title, each.text) for each, (key, _) in found] == [("7", "一", "甲。")]
    assert rank.read_queries(str(path)) == ["问题？"]
    assert rank.read_queries(str(jsonl(tmp_path, {"query": "问", "id": [1, 2]}))) == ["问"]
    with pytest.raises(InputError, match="line 1, column 'query': a list of 2 values"):
        rank.read_queries(str(jsonl(tmp_path, {"query": ["问", "题"]})))


# csv


TWO = [["question", "doc"], ["甲？", "一, 二"], ["乙？", "三"]]
THREE = [["question", "answer, short", "doc"], ["甲？", "一", "1,5"], ["乙？", "二", "三"]]


@pytest.mark.parametrize(
    "text, expected",
    [
        ('sep=,\nquestion,doc\n甲？,"一, 二"\n乙？,三\n', TWO),
        ("sep=;\r\nquestion;doc\r\n甲？;一, 二\r\n乙？;三\r\n", TWO),
        ("\ufeffSEP=\t\rquestion\tdoc\r甲？\t一, 二\r乙？\t三\r", TWO),
        ('"sep=;"\nquestion;doc\n甲？;一, 二\n乙？;三\n', TWO),
        ("question;doc\n甲？;一, 二\n乙？;三\n", TWO),
        ("question\tdoc\n甲？\t一, 二\n乙？\t三\n", TWO),
        ("question|doc\n甲？|一, 二\n乙？|三\n", TWO),
        ("question;answer, short;doc\n甲？;一;1,5\n乙？;二;三\n", THREE),
        (
            "question;answer, short;doc\n甲？;一;1,5\n乙？;二,二;三\n",
            [*THREE[:2], ["乙？", "二,二", "三"]],
        ),
        ('"question";"answer, short";"doc"\n甲？;一;1,5\n"乙？";二;三\n', THREE),
        (
            "question,context (a; b; c),doc\n甲,x;y;z,一\n",
            [["question", "context (a; b; c)", "doc"], ["甲", "x;y;z", "一"]],
        ),
        ("question,a;b\n甲,x;y\n乙,z\n", [["question", "a;b"], ["甲", "x;y"], ["乙", "z"]]),
        ("问;题\n", None),
        ('"a;b"\n甲\n', [["a;b"], ["甲"]]),
    ],
)
def test_the_separator_is_the_one_a_person_sees(tmp_path, text, expected):
    path = put(tmp_path / "t.csv", text)
    if expected is None:
        assert refusal(path) == ": the table has no rows"
    else:
        assert rows(path) == expected


def test_a_separator_other_than_the_comma_is_said(tmp_path, capsys):
    path = put(tmp_path / "t.csv", "q;a\n甲;一\n")
    assert rows(path) == [["q", "a"], ["甲", "一"]]
    assert capsys.readouterr().out == f"{path}: read as separated by semicolons\n"


def test_excels_first_line_has_no_row_number(tmp_path):
    assert read_table(put(tmp_path / "t.csv", "sep=;\nq;a\n甲;一\n")).index.tolist() == [2]


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "q,a\n甲,一,二\n",
            ", row 2: 3 cells where the header has 2; quote a cell that holds a comma",
        ),
        (
            "q;a\n甲;一;二\n",
            ", row 2: 3 cells where the header has 2 (separated by semicolons); "
            "quote a cell that holds a semicolon",
        ),
        (
            "q\ta\n甲\t一\t二\n",
            ", row 2: 3 cells where the header has 2 (separated by tabs); "
            "quote a cell that holds a tab",
        ),
        (
            "q,a,d\n甲,一\n",
            ", row 2: 2 cells where the header has 3; "
            "fill it up, or quote a cell with a line break",
        ),
        (
            "q,a\n甲,一\n二\n",
            ", row 3: 1 cell where the header has 2; fill it up, or quote a cell with a line break",
        ),
        (
            "q;a, b;d\n甲;一\n",
            ", row 2: 2 cells where the header has 3 (separated by semicolons); "
            "fill it up, or quote a cell with a line break",
        ),
        (
            "sep=;\nq,a\n甲;一\n",
            ", row 2: 2 cells where the header has 1 (separated by semicolons); "
            "quote a cell that holds a semicolon",
        ),
        ('q;a\n甲;"一\n', ", row 2: unexpected end of data; check the quotes"),
    ],
)
def test_rows_with_too_few_or_too_many_cells_are_told_apart(tmp_path, text, message):
    assert refusal(put(tmp_path / "t.csv", text)) == message


@pytest.mark.parametrize(
    "text",
    [
        "q,a\n甲,一,,\n乙,二\n",
        "q,a,,\n甲,一\n乙,二,,\n",
        "q,a\n甲,一\n乙,二, ,\u3000\n,,,\n",
        "q,,a,\n甲,,一,\n乙,,二,\n",
        "q,a\r甲,一\r乙,二\r",
        '\ufeff"q","a"\r\n"甲","一"\r\n"乙","二"\r\n',
        '\ufeff\ufeff"q", "a"\n甲, "一"\n乙,二\n',
        'q,a\n甲,一\n\ufeff"乙",二\n',
        "q,a\n甲,一\n\ufeffq,a\n乙,二\n",
        "q,a\r甲,一\r\ufeffq,a\r乙,二\r",
    ],
)
def test_empty_cells_marks_and_line_ends_make_no_difference(tmp_path, text):
    assert rows(put(tmp_path / "t.csv", text)) == [["q", "a"], ["甲", "一"], ["乙", "二"]]


def test_a_repeated_header_is_said_and_a_word_of_one_column_stays(tmp_path, capsys):
    path = put(tmp_path / "t.csv", "q,a\n甲,一\nq,a\nq,一\nq,a\n")
    assert read_table(path).index.tolist() == [2, 4]
    assert capsys.readouterr().out == f"{path}: left out rows that repeat the header: 2\n"
    assert rows(put(path, "doc\n甲\ndoc\n")) == [["doc"], ["甲"], ["doc"]]


def test_byte_order_marks_in_a_text_file_are_no_text(tmp_path):
    path = put(tmp_path / "t.txt", "\ufeff甲\n\ufeff乙\r\n\ufeff丙")
    assert decode(path) == "甲\n乙\r\n丙"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_the_row_of_bad_bytes_is_counted_at_every_line_end(tmp_path, end):
    bad = put(tmp_path / "t.csv", f"q{end}甲{end}".encode() + b"\xff\xff" + end.encode())
    assert refusal(bad).startswith(", row 3: bytes that are neither")
    assert refusal(put(bad, f"q{end}甲{end}\0")).startswith(", row 3: a NUL byte")


# xlsx


def book(path: Path, *cells: list, formats: dict = {}, merged: str = "") -> Path:
    workbook = openpyxl.Workbook()
    for row in cells:
        workbook.active.append(row)
    for at, number_format in formats.items():
        workbook.active[at].number_format = number_format
    if merged:
        workbook.active.merge_cells(merged)
    workbook.save(path)
    return path


TABLE = (["question", "answer", "doc"], ["甲？", "一", "二"], ["乙？", None, "三"])


@pytest.mark.parametrize(
    "above, merged, row",
    [
        ([["问答表"]], "A1:C1", 2),
        ([["问答表"]], "", 2),
        ([[None, "问答表"], [], ["2024年8月"]], "", 4),
        ([["一"], ["二"], ["三"], ["四"]], "", 5),
        ([["问答表"], []], "A1:C2", 3),
    ],
)
def test_titles_above_the_header_are_skipped(tmp_path, capsys, above, merged, row):
    path = book(tmp_path / "t.xlsx", *above, *TABLE, merged=merged)
    assert rows(path) == [TABLE[0], TABLE[1], ["乙？", "", "三"]]
    assert read_table(path).index.tolist() == [row + 1, row + 2]
    line = f"{path}: row {row} is read as the header, the text above it as a title"
    assert line in capsys.readouterr().out.splitlines()


def test_a_title_that_excel_saved_as_csv_is_skipped(tmp_path):
    path = put(tmp_path / "t.csv", "问答表;;\nquestion;answer;doc\n甲？;一;二\n乙？;;三\n")
    assert rows(path) == [TABLE[0], TABLE[1], ["乙？", "", "三"]]


def test_a_header_is_no_title(tmp_path):
    assert rows(book(tmp_path / "t.xlsx", ["问题"], ["甲"], ["乙"])) == [["问题"], ["甲"], ["乙"]]
    beside = book(tmp_path / "t.xlsx", ["doc", None], ["甲", "备注"], ["乙", None])
    assert rows(beside) == [["doc", ""], ["甲", "备注"], ["乙", ""]]
    far = book(tmp_path / "t.xlsx", *[[f"{number}"] for number in range(5)], ["甲", "乙"], ["丙"])
    assert rows(far)[0] == ["0", ""]
    last = put(tmp_path / "t.csv", "q,,\n甲,1,2\n")
    assert refusal(last).endswith("two columns without a name; name them, or delete their cells")


@pytest.mark.parametrize("number", [1.2345678901234568e18, 1234567890123456789, -(2.0**60), 2**53])
def test_numbers_with_more_digits_than_excel_keeps_are_refused_where_they_are_used(
    tmp_path, number
):
    path = book(tmp_path / "t.xlsx", ["uuid", "doc"], [2**53 - 1, "甲"], [number, "乙"])
    refuse_nested(read_table(path), ("doc",), path)
    assert read_table(path)["uuid"].iloc[0] == "9007199254740991"
    digits = len(str(abs(int(number))))
    assert refusal(path, "doc", "uuid") == (
        f", row 3, column 'uuid': a number of {digits} digits, of which Excel keeps 15; "
        "format the column as text and enter it again"
    )
    padded = book(path, ["uuid", "doc"], [number, "乙"], formats={"A2": "0" * 20})
    assert "digits, of which Excel keeps 15" in refusal(padded, "uuid")


def test_long_ids_as_text_and_in_other_formats_are_read(tmp_path):
    path = book(tmp_path / "t.xlsx", ["uuid", "doc"], ["1234567890123456789", "甲"])
    refuse_nested(read_table(path), ("uuid",), path)
    lines = jsonl(tmp_path, {"uuid": 1234567890123456789})
    refuse_nested(read_table(lines), ("uuid",), lines)
    assert rows(path)[1][0] == rows(lines)[1][0] == "1234567890123456789"


DAY = datetime.datetime(2024, 8, 11)


@pytest.mark.parametrize(
    "value, number_format, text",
    [
        (0.15, "0%", "15%"),
        (0.155, "0.0%", "15.5%"),
        (0.155, "0%", "16%"),
        (0.145, "0%", "15%"),
        (-0.15, "0.00%", "-15.00%"),
        (-0.001, "0%", "0%"),
        (1, "0%", "100%"),
        (0, "0.0%", "0.0%"),
        (12.5, "#,##0%", "1,250%"),
        (0.125, "0.0##%", "12.5%"),
        (-0.15, "0%;[Red](0%)", "(15%)"),
        (0.15, '"约"0%_ ', "约15%"),
        (0.15, "0 %", "15 %"),
        (7, "0000", "0007"),
        (7.0, "0000", "0007"),
        (-7, "000", "-007"),
        (12345, "0000", "12345"),
        (7, '"A-"0000', "A-0007"),
        (7, "[$SKU-409]000;@", "SKU007"),
        (1088881234, "000-0000-0000", "010-8888-1234"),
        (1088881234, "000 0000 0000", "010 8888 1234"),
        (23456789012, "000-0000", "2345678-9012"),
        (7, "#00", "07"),
        (7, "###-0000", "-0007"),
        (7.5, "0000", "7.5"),
        (7, "0", "7"),
        (7, "General", "7"),
        (7, "00.00", "7"),
        (1234.5, "#,##0.00", "1234.5"),
        (0.5, "[>1]0%;0.0", "0.5"),
        (DAY, "yyyy-mm-dd", "2024-08-11"),
        (DAY, "yyyy/m/d;@", "2024/8/11"),
        (DAY, 'yyyy"年"m"月"d"日"', "2024年8月11日"),
        (DAY, "[$-804]yyyy年mm月dd日", "2024年08月11日"),
        (DAY, r"yyyy\-m", "2024-8"),
        (DAY, "yyyymmdd", "20240811"),
        (DAY, "dd.mm.yy", "11.08.24"),
        (DAY, "mm-dd-yy", "2024-08-11"),
        (DAY, "d-mmm-yy", "2024-08-11"),
        (DAY, "[$-F800]dddd, mmmm dd, yyyy", "2024-08-11"),
        (DAY.replace(hour=15), "yyyy-mm-dd", "2024-08-11"),
        (DAY, "yyyy-mm-dd h:mm:ss", "2024-08-11 00:00:00"),
        (datetime.time(9, 30), "h:mm", "09:30:00"),
        (True, "0%", "True"),
        ("7", "0000", "7"),
        ("7", "0%", "7"),
    ],
)
def test_numbers_and_dates_are_read_as_excel_shows_them(tmp_path, value, number_format, text):
    path = book(tmp_path / "t.xlsx", ["q", "a"], ["甲", value], formats={"B2": number_format})
    assert rows(path) == [["q", "a"], ["甲", text]]


def change(path: Path, old: str, new: str) -> Path:
    """Change the workbook's styles and sheet."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert any(old.encode() in part for part in parts.values())
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part.replace(old.encode(), new.encode()))
    return path


@pytest.mark.parametrize(
    "number, style, text",
    [
        (45515, 31, "2024年8月11日"),
        (45515, 57, "2024年8月"),
        (45515, 58, "8月11日"),
        (0.5, 32, "12:00:00"),
        (3e9, 31, "3000000000"),
    ],
)
def test_chinese_excels_own_date_formats_are_dates(tmp_path, number, style, text):
    path = book(tmp_path / "t.xlsx", ["q", "a"], ["甲", number], formats={"B2": "0.00"})
    assert rows(change(path, 'numFmtId="2"', f'numFmtId="{style}"'))[1] == ["甲", text]


def test_a_style_that_the_workbook_lacks_is_no_format(tmp_path):
    path = book(tmp_path / "t.xlsx", ["q", "a"], ["甲", 7], formats={"B2": "0000"})
    assert rows(change(path, 's="1"', 's="99"'))[1] == ["甲", "7"]


@pytest.mark.parametrize(
    "number_format", ["", ";;;", "@", '"', "\\", "[", "%", "0%%", "_", "0" * 300]
)
@pytest.mark.parametrize("value", [0, -1, 0.5, 1e-300, 2**53, 1e300, DAY, None, "x"])
def test_an_odd_format_never_fails(value, number_format):
    assert isinstance(shown(value, number_format), str | None)


# files beside the tables


BESIDE = [
    *(".DS_Store", "qa.csv~", "~$qa.xlsx", "._qa.csv", ".~lock.qa.csv#", "Thumbs.db"),
    "desktop.ini",
]


def test_files_that_programs_leave_beside_the_tables_are_ignored(tmp_path):
    for name in (*BESIDE, "qa.csv"):
        put(tmp_path / name, "x")
    assert find_tables(tmp_path) == (tmp_path / "qa.csv", None)
    assert files_in(tmp_path) == [tmp_path / "qa.csv"]


def test_dvc_and_the_library_ignore_the_same_files(tmp_path):
    lines = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
    assert tuple(line.rstrip("/") for line in lines if line[:1] != "#") == IGNORED
    copy_project(tmp_path)
    git("init", "-q", cwd=tmp_path)
    names = [f"data/raw/{name}" for name in (*BESIDE, "qa.csv")]
    command = [sys.executable, "-m", "dvc", "check-ignore", *names]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.splitlines() == names[:-1]
