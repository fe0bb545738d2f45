import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile

import openpyxl
import pandas as pd
import pyarrow.parquet
import pytest
from conftest import ROOT

from tunerank.core.errors import InputError
from tunerank.core.files import replacing, write_json, write_jsonl
from tunerank.data.readers.tables import find_tables, read_table


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def workbook(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def message_of(path):
    with pytest.raises(InputError) as error:
        read_table(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


def rows_of(table):
    return {number: row.tolist() for number, row in zip(table.index, table.to_numpy())}


# csv


def test_csv_cells_are_stripped_text_numbered_as_in_a_spreadsheet(tmp_path):
    table = read_table(put(tmp_path / "t.csv", "question , answer\n 甲 ,1.50\r\n乙,\n"))
    assert table.columns.tolist() == ["question", "answer"]
    assert rows_of(table) == {2: ["甲", "1.50"], 3: ["乙", ""]}


def test_csv_with_a_byte_order_mark_is_read(tmp_path, capsys):
    table = read_table(put(tmp_path / "t.csv", "question,answer\n甲,乙\n".encode("utf-8-sig")))
    assert table.columns.tolist() == ["question", "answer"] and rows_of(table) == {2: ["甲", "乙"]}
    assert capsys.readouterr().out == ""


def test_gb18030_csv_is_read_and_reported(tmp_path, capsys):
    path = put(tmp_path / "t.csv", "问题,答案\n云杉多少钱？,㐀元\n".encode("gb18030"))
    table = read_table(path)
    assert table.columns.tolist() == ["问题", "答案"] and rows_of(table) == {
        2: ["云杉多少钱？", "㐀元"]
    }
    assert capsys.readouterr().out == f"{path}: read as GB18030 (it is not UTF-8)\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "gb18030"])
def test_bytes_in_an_unknown_encoding_name_their_row(tmp_path, encoding):
    row = "问,答\n" if encoding != "ascii" else "q,a\n"
    path = put(
        tmp_path / "t.csv",
        b"question,answer\n" + row.encode(encoding) * 3 + b"\xff\xff,x\n" + row.encode(encoding),
    )
    assert message_of(path) == (
        ", row 5: bytes that are neither UTF-8 nor GB18030; save the table as UTF-8 and try again"
    )


@pytest.mark.parametrize("name", ["NA", "None", "nan", "null", "N/A"])
def test_a_word_for_a_missing_value_stays_text(tmp_path, name):
    assert rows_of(read_table(put(tmp_path / "t.csv", f"q,a\n{name},x\n"))) == {2: [name, "x"]}
    assert rows_of(read_table(workbook(tmp_path / "t.xlsx", [["q", "a"], [name, "x"]]))) == {
        2: [name, "x"]
    }


def test_a_line_break_in_a_quoted_cell_is_kept(tmp_path):
    table = read_table(put(tmp_path / "t.csv", 'q,a\n"第一行\n第二行",x\n'))
    assert rows_of(table) == {2: ["第一行\n第二行", "x"]}


def test_rows_after_a_line_break_in_a_cell_keep_a_spreadsheets_numbers(tmp_path):
    table = read_table(put(tmp_path / "t.csv", 'q,a\n"one\ntwo",x\nthree,y\n\nfour,z\n'))
    assert list(table.index) == [2, 3, 5]


def test_the_row_in_an_error_after_a_line_break_in_a_cell_is_a_spreadsheets(tmp_path):
    assert message_of(put(tmp_path / "t.csv", 'q,a\n"one\ntwo",x\nthree,y,z\n')).startswith(
        ", row 3: 3 cells"
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "q,a\nx,y\nx\0,y\n",
            ", row 3: a NUL byte; is this a text file? If it is UTF-16, save it as UTF-8",
        ),
        (
            "q,a\nx,y\nx,y,z\n",
            ", row 3: 3 cells where the header has 2; quote a cell that holds a comma",
        ),
        (
            "q,a\n\nx\n",
            ", row 3: 1 cell where the header has 2; fill it up, or quote a cell with a line break",
        ),
        ('q,a\nx,y\nx,"y\nx,y\n', ", row 3: unexpected end of data; check the quotes"),
        ('q,a\n"x" or,y\n', ", row 2: ',' expected after '\"'; check the quotes"),
        ("q,a,q\nx,y,z\n", ", row 1: column 'q' appears twice; rename one"),
        ("", ": the table has no rows"),
        ("q,a\n,\n\n", ": the table has no rows"),
    ],
)
def test_a_broken_csv_is_refused_by_row(tmp_path, content, message):
    assert message_of(put(tmp_path / "t.csv", content)) == message


# no table


def test_a_missing_file_says_what_to_set(tmp_path):
    assert (
        message_of(tmp_path / "t.csv")
        == ": no such file; put the table there or set prepare.raw to where it is"
    )


@pytest.mark.parametrize("name", ["t.xls", "t.txt", "t"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path, name):
    suffix = name[1:]
    path = put(tmp_path / name, "q,a\nx,y\n")
    assert (
        message_of(path)
        == f": cannot read '{suffix}' tables; use one of .csv, .xlsx, .jsonl, .parquet, .json"
    )


def test_a_folder_named_as_a_table_is_refused(tmp_path):
    (tmp_path / "t.csv").mkdir()
    assert message_of(tmp_path / "t.csv") == ": is a folder, not a file"


def test_the_suffix_may_be_upper_case(tmp_path):
    assert rows_of(read_table(put(tmp_path / "T.CSV", "q,a\nx,y\n"))) == {2: ["x", "y"]}


# xlsx


def test_xlsx_cells_are_text_numbered_as_in_a_spreadsheet(tmp_path):
    rows = [
        ["question ", "n"],
        [" 甲 ", 1],
        ["多\n行", 2.5],
        [None, None],
        ["丙", 3.0],
        ["丁", None],
        [2024, True],
    ]
    table = read_table(workbook(tmp_path / "t.xlsx", rows))
    assert table.columns.tolist() == ["question", "n"]
    assert rows_of(table) == {
        2: ["甲", "1"],
        3: ["多\n行", "2.5"],
        5: ["丙", "3"],
        6: ["丁", ""],
        7: ["2024", "True"],
    }


def test_xlsx_without_rows_is_refused(tmp_path):
    assert message_of(workbook(tmp_path / "t.xlsx", [["q", "a"]])) == ": the table has no rows"


def test_random_bytes_are_refused_as_a_workbook(tmp_path):
    message = message_of(put(tmp_path / "t.xlsx", bytes(range(256)) * 8))
    assert message.startswith(": cannot be read as an Excel workbook (") and message.endswith(
        "save it as xlsx again"
    )


def test_a_zip_that_is_not_a_workbook_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("readme.txt", "x")
    message = message_of(tmp_path / "t.xlsx")
    assert message.startswith(": cannot be read as an Excel workbook (") and message.endswith(
        "save it as xlsx again"
    )


def test_a_repeated_column_of_a_workbook_is_refused(tmp_path):
    assert "column 'q' appears twice" in message_of(
        workbook(tmp_path / "t.xlsx", [["q", "a", "q"], ["x", "y", "z"]])
    )


# jsonl


def test_jsonl_values_become_text_numbered_by_line(tmp_path):
    lines = [
        '{"q": " 甲 ", "n": 1}',
        "",
        '{"q": null, "tags": ["一", "b"]}',
        '{"q": "NA", "n": 2.5, "tags": {"k": "值"}}',
    ]
    table = read_table(put(tmp_path / "t.jsonl", "\n".join(lines)))
    assert table.columns.tolist() == ["q", "n", "tags"]
    assert rows_of(table) == {
        1: ["甲", "1", ""],
        3: ["", "", '["一", "b"]'],
        4: ["NA", "2.5", '{"k": "值"}'],
    }


@pytest.mark.parametrize(
    "content, message",
    [
        (
            '{"q": "x"}\n\n{"q": "x"\n',
            ", line 3: not valid JSON (Expecting ',' delimiter); repair or delete the line",
        ),
        ('{"q": "x"}\n["x"]\n', ", line 2: expected a JSON object, found list"),
        ('"x"\n', ", line 1: expected a JSON object, found str"),
        (b'{"q": "\xff"}\n', ", line 1: not UTF-8; save the file as UTF-8"),
        ("", ": the table has no rows"),
    ],
)
def test_a_broken_jsonl_is_refused_by_line(tmp_path, content, message):
    assert message_of(put(tmp_path / "t.jsonl", content)) == message


def test_jsonl_with_a_byte_order_mark_is_read(tmp_path):
    assert rows_of(read_table(put(tmp_path / "t.jsonl", '{"q": "甲"}\n'.encode("utf-8-sig")))) == {
        1: ["甲"]
    }


# parquet


def test_parquet_with_missing_values_is_read_back(tmp_path):
    frame = pd.DataFrame(
        {"q": [" 甲 ", None, "NA"], "x": [0.5, None, 2.5], "n": [1, 2, 3]}, index=[7, 8, 9]
    )
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.columns.tolist() == ["q", "x", "n"]
    assert rows_of(table) == {1: ["甲", "0.5", "1"], 2: ["", "", "2"], 3: ["NA", "2.5", "3"]}


def test_a_list_in_a_parquet_cell_becomes_json(tmp_path):
    pd.DataFrame({"q": ["甲", "乙"], "tags": [["一", "b"], None]}).to_parquet(
        tmp_path / "t.parquet"
    )
    assert rows_of(read_table(tmp_path / "t.parquet")) == {1: ["甲", '["一", "b"]'], 2: ["乙", ""]}


def test_whole_numbers_beside_missing_ones_stay_whole_in_parquet(tmp_path):
    pyarrow.parquet.write_table(
        pyarrow.table({"q": ["甲", "乙"], "uuid": [17, None]}), tmp_path / "t.parquet"
    )
    assert rows_of(read_table(tmp_path / "t.parquet")) == {1: ["甲", "17"], 2: ["乙", ""]}


def test_random_bytes_are_refused_as_parquet(tmp_path):
    assert message_of(put(tmp_path / "t.parquet", bytes(range(256)))).startswith(
        ": cannot be read as parquet ("
    )


# find_tables


@pytest.mark.parametrize(
    "files, qa, corpus",
    [
        (["qa.csv"], "qa.csv", None),
        (["qa.xlsx", "corpus.csv", "README.md"], "qa.xlsx", "corpus.csv"),
        (["qa.parquet", "corpus.JSONL", "qa.txt", "qa_old.csv"], "qa.parquet", "corpus.JSONL"),
    ],
)
def test_the_tables_of_a_folder_are_found(tmp_path, files, qa, corpus):
    for name in files:
        put(tmp_path / name, "")
    assert find_tables(tmp_path) == (tmp_path / qa, tmp_path / corpus if corpus else None)


def test_a_path_to_a_file_is_the_table_of_questions(tmp_path):
    put(tmp_path / "corpus.csv", "")
    assert find_tables(put(tmp_path / "mine.csv", "")) == (tmp_path / "mine.csv", None)


@pytest.mark.parametrize(
    "files, message",
    [
        (["qa.csv", "qa.xlsx"], "both qa.csv and qa.xlsx; keep one of them"),
        (
            ["qa.csv", "corpus.csv", "corpus.jsonl"],
            "both corpus.csv and corpus.jsonl; keep one of them",
        ),
        (["corpus.csv"], "no qa.csv, qa.xlsx, qa.jsonl, qa.parquet or qa.json in this folder"),
        ([], "no qa.csv, qa.xlsx, qa.jsonl, qa.parquet or qa.json in this folder"),
    ],
)
def test_an_ambiguous_folder_is_refused(tmp_path, files, message):
    for name in files:
        put(tmp_path / name, "")
    with pytest.raises(InputError) as error:
        find_tables(tmp_path)
    assert str(error.value) == f"{tmp_path}: {message}"


# files


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_failed_block_leaves_the_old_file(tmp_path):
    target = put(tmp_path / "t.txt", "old")
    with pytest.raises(KeyError), replacing(target) as partial:
        partial.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and names_in(tmp_path) == ["t.txt"]


def test_a_failed_block_leaves_the_old_folder(tmp_path):
    (tmp_path / "out").mkdir()
    put(tmp_path / "out" / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "out") as partial:
        partial.mkdir()
        put(partial / "a.txt", "new")
        raise KeyboardInterrupt
    assert (tmp_path / "out" / "a.txt").read_text() == "old" and names_in(tmp_path) == [
        "out",
        "out/a.txt",
    ]


def test_a_failed_block_creates_nothing(tmp_path):
    with pytest.raises(KeyError), replacing(tmp_path / "deep" / "t.txt") as partial:
        partial.write_text("half")
        raise KeyError
    assert names_in(tmp_path) == ["deep"]


def test_a_folder_is_replaced_whole(tmp_path):
    for folder in ("out", "out.partial"):  # a killed process has left the second
        (tmp_path / folder).mkdir()
        put(tmp_path / folder / f"{folder}.old", "")
    with replacing(tmp_path / "out") as partial:
        assert not partial.exists()
        partial.mkdir()
        put(partial / "new", "")
    assert names_in(tmp_path) == ["out", "out/new"]


@pytest.mark.parametrize(
    "umask, file_mode, folder_mode",
    [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)],
)
def test_outputs_have_the_mode_of_the_umask(tmp_path, umask, file_mode, folder_mode):
    cached = put(tmp_path / "cached", "object of a cache")
    cached.chmod(0o444)
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "out") as partial:
            (partial / "deep").mkdir(parents=True, mode=0o700)
            # Libraries leave this mode on a file that they first wrote to a temporary file.
            put(partial / "deep" / "private", "").chmod(0o600)
            os.link(cached, partial / "linked")
        write_jsonl(tmp_path / "rows.jsonl", [{}])
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names_in(tmp_path)}
    assert modes == {
        "cached": 0o444,
        "out": folder_mode,
        "out/deep": folder_mode,
        "out/deep/private": file_mode,
        "out/linked": 0o444,
        "rows.jsonl": file_mode,
    }


def test_outputs_are_flushed_to_the_disk_before_they_get_their_name(tmp_path):
    """strace shows the order of the calls."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    script = f"""
import sys; sys.path[:0] = [{str(ROOT / "src")!r}]
from pathlib import Path
from tunerank.core.files import replacing
with replacing("out") as partial:
    (partial / "deep").mkdir(parents=True)
    (partial / "deep" / "file").write_text("x")
"""
    command = ["strace", "-f", "-y", "-e", "trace=fsync,rename", sys.executable, "-c", script]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    calls = re.findall(r"(fsync|rename)\((?:\d+<)?(.*?)[>)]", said)
    assert [(name, path.replace(f"{tmp_path}", "").strip("/")) for name, path in calls] == [
        ("fsync", "out.partial/deep"), ("fsync", "out.partial/deep/file"), ("fsync", "out.partial"),
        ("rename", '"out.partial", "out"'), ("fsync", ""),
    ]  # fmt: skip


def test_rows_that_fail_halfway_leave_the_old_jsonl(tmp_path):
    path = tmp_path / "t.jsonl"
    assert write_jsonl(path, [{"问": "甲", "n": 1}, {"问": "乙"}]) == 2
    with pytest.raises(ZeroDivisionError):
        write_jsonl(path, ({"n": 1 / n} for n in (1, 0)))
    assert path.read_bytes() == '{"问": "甲", "n": 1}\n{"问": "乙"}\n'.encode() and names_in(
        tmp_path
    ) == ["t.jsonl"]


def test_json_is_rounded_to_six_digits(tmp_path):
    value = {"b": 1 / 3, "a": [0.12345649, 2e-7, 100.0, 3], "文": {"x": None}}
    write_json(tmp_path / "t.json", value)
    assert (tmp_path / "t.json").read_bytes() == (
        '{\n  "b": 0.333333,\n  "a": [\n    0.123456,\n    0.0,\n    100.0,\n    3\n  ],\n'
        '  "文": {\n    "x": null\n  }\n}\n'
    ).encode()
    assert value["b"] == 1 / 3


def test_json_that_is_read_and_written_again_has_the_same_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"x": [0.1 + 0.2, 2 / 3, 1e-5, 12345.6789012]})
    first = (tmp_path / "a.json").read_bytes()
    write_json(tmp_path / "a.json", json.loads(first))
    assert (tmp_path / "a.json").read_bytes() == first
