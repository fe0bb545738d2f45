"""Test ranking with a checkpoint from the shell and from Python."""

import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, git, hears_ctrl_c, table_rows
from packing import pack
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunerank.commands.app import UsageError, call
from tunerank.core.errors import InputError
from tunerank.data.passages import Passage
from tunerank.models.checkpoint import save
from tunerank.models.cross_encoder import CrossEncoder
from tunerank.ranker import Ranker

DOCS = list(dict.fromkeys(row["doc"] for row in table_rows()))
QUERY = "船是什么颜色？"


@pytest.fixture(scope="module")
def viewing(tiny_model, tmp_path_factory):
    """Return the tiny model with the settings of a training on views of 10 characters."""
    model, folder = (
        AutoModelForSequenceClassification.from_pretrained(tiny_model),
        tmp_path_factory.mktemp("viewing"),
    )
    model.config.reranker = {
        "max_length": 40,
        "shown": 10,
        "window": 8,
        "stride": 4,
        "views": 2,
        "views_depth": 1,
        "title": True,
    }
    save(model, AutoTokenizer.from_pretrained(tiny_model), folder)
    return folder


def test_a_checkpoint_without_views_ranks_whole_passages(tiny_model):
    scores = CrossEncoder(tiny_model, 512, "fp32").score([(QUERY, doc) for doc in DOCS])
    found = Ranker(tiny_model, "fp32").rank(QUERY, DOCS)
    assert [ranked.index for ranked in found] == sorted(range(len(DOCS)), key=lambda i: -scores[i])
    assert [ranked.score for ranked in found] == pytest.approx(
        sorted(scores, reverse=True), abs=1e-5
    )
    assert found[0].view == DOCS[found[0].index]


def test_a_passage_has_the_score_of_its_best_view(viewing):
    """Views have the title and 10 characters and start every 5 characters.

    The last view ends with the text.
    """
    encoder, best = CrossEncoder(viewing, 40, "fp32"), {}
    for index, doc in enumerate(DOCS):
        starts = [*range(0, len(doc) - 10, 5), None]
        texts = [
            "手册。"
            f"{doc[start : start + 10] if start is not None else doc[5 * (len(starts) - 1) :]}"
            for start in starts
        ]
        scores = encoder.score([(QUERY, text) for text in texts])
        best[index] = (max(scores), texts[scores.argmax()])
    found = Ranker(viewing, "fp32").rank(QUERY, [Passage("手册", doc) for doc in DOCS], top_k=5)
    assert [ranked.index for ranked in found] == sorted(best, key=lambda i: -best[i][0])[:5]
    assert [(ranked.score, ranked.view) for ranked in found] == [
        (pytest.approx(best[r.index][0], abs=1e-5), best[r.index][1]) for r in found
    ]


def test_equal_scores_keep_their_order_and_many_queries_rank_like_one_by_one(viewing):
    ranker = Ranker(viewing)
    assert [ranked.index for ranked in ranker.rank(QUERY, ["红色的车"] * 3)] == [0, 1, 2]
    queries = [QUERY, "车卖多少元？"]
    together, alone = (
        ranker.rank_many(queries, DOCS, 3),
        [ranker.rank(query, DOCS, 3) for query in queries],
    )
    assert [[r.index for r in found] for found in together] == [
        [r.index for r in found] for found in alone
    ]
    assert together[0] != together[1]


def test_a_packed_reranker_can_rank(tiny_model, tmp_path):
    pack(
        tiny_model, tmp_path / "packed", list(range(len(AutoTokenizer.from_pretrained(tiny_model))))
    )
    packed, plain = (
        Ranker(folder, "fp32").rank(QUERY, DOCS) for folder in (tmp_path / "packed", tiny_model)
    )
    assert [ranked.score for ranked in packed] == pytest.approx(
        [ranked.score for ranked in plain], abs=0.05
    )


def given(monkeypatch, content: bytes) -> None:
    """Put content on standard input, whose encoding is GBK as in a Chinese Windows."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="gbk"))


def said(capsys, *arguments: str) -> str:
    call("rank", *map(str, arguments))
    return capsys.readouterr().out


def test_files_of_every_kind_give_the_same_ranking(tiny_model, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("\n\n".join(DOCS) + "\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text(
        "uuid,doc\n" + "".join(f"p{i},{doc}\n" for i, doc in enumerate(DOCS)), encoding="utf-8"
    )
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": doc}) + "\n" for doc in DOCS), encoding="utf-8"
    )
    results = [
        json.loads(said(capsys, tiny_model, QUERY, tmp_path / name, "--json"))
        for name in ("a.txt", "a.csv", "a.jsonl")
    ]
    for arguments in ((), ("-",)):
        given(monkeypatch, "\n".join(DOCS).encode())
        results.append(json.loads(said(capsys, tiny_model, QUERY, *arguments, "--json")))
    order = [ranked.index for ranked in Ranker(tiny_model).rank(QUERY, DOCS, 10)]
    names = ("a.txt:{}", "p{}", "a.jsonl:{}", "stdin:{}", "stdin:{}")
    for result, name in zip(results, names, strict=True):
        assert result["query"] == QUERY and [row["rank"] for row in result["ranked"]] == list(
            range(1, 11)
        )
        assert [row["passage"] for row in result["ranked"]] == [DOCS[i] for i in order]
        line = {"a.txt:{}": lambda i: 2 * i + 1, "p{}": lambda i: i}.get(name, lambda i: i + 1)
        assert [row["id"] for row in result["ranked"]] == [name.format(line(i)) for i in order]


def test_a_batch_of_queries_shows_the_requested_number_of_passages(tiny_model, tmp_path, capsys):
    (tmp_path / "queries.txt").write_text(f"{QUERY}\n\n车卖多少元？\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("\n".join(DOCS), encoding="utf-8")
    out = said(
        capsys, tiny_model, tmp_path / "queries.txt", tmp_path / "a.txt", "--batch", "--top-k", "2"
    ).splitlines()
    assert [line for line in out if line.startswith("#")] == [
        f"# {QUERY}",
        "# 车卖多少元？",
    ] and len(out) == 6
    assert out[1].split()[0] == "1" and out[2].split()[0] == "2"
    assert len(
        said(capsys, tiny_model, QUERY, tmp_path / "a.txt", "--top-k", "0").splitlines()
    ) == len(DOCS)


def test_a_passage_of_several_lines_is_shown_in_one_line(tiny_model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text('uuid,doc\np1,"红色的车\n\n蓝色的船"\n', encoding="utf-8")
    (line,) = said(capsys, tiny_model, QUERY, tmp_path / "a.csv").splitlines()
    assert line.split(maxsplit=2)[2] == "p1  红色的车 蓝色的船"


def test_a_table_of_questions_lists_its_passages_once(tiny_model, tmp_path, capsys):
    rows = "uuid,question,doc\np1,甲,红色的车\np1,乙,红色的车\np2,丙,蓝色的船\np1,丁,红色的车\n"
    (tmp_path / "qa.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "more.txt").write_text("蓝色的船\n绿色的灯\n蓝色的船\n", encoding="utf-8")
    arguments = (tiny_model, QUERY, tmp_path / "qa.csv", tmp_path / "more.txt", "--json")
    ranked = json.loads(said(capsys, *arguments))["ranked"]
    assert sorted((row["id"], row["passage"]) for row in ranked) == [
        ("more.txt:2", "绿色的灯"),
        ("p1", "红色的车"),
        ("p2", "蓝色的船"),
    ]


@pytest.mark.parametrize(
    "query, options",
    [
        ("-5度能用吗", ()),
        ("-5度能用吗", ("--top-k", "1")),
        ("-20", ()),
        ("--5度", ()),
        ("-a股行情", ()),
        ("-v2 适配器", ()),
        ("-v2", ("--",)),
        ("--top-k", ("--",)),
    ],
)
def test_a_query_may_begin_with_a_hyphen(tiny_model, tmp_path, capsys, query, options):
    (tmp_path / "a.txt").write_text("红色的车\n蓝色的船\n", encoding="utf-8")
    found = json.loads(said(capsys, "--json", *options, tiny_model, query, tmp_path / "a.txt"))
    assert found["query"] == query and len(found["ranked"]) == (1 if "1" in options else 2)


@pytest.mark.parametrize("name", ["--topk", "--bach", "-k", "--jsn=1", "-json"])
def test_a_word_that_looks_like_an_option_must_be_one(tiny_model, name):
    with pytest.raises(UsageError) as error:
        call("rank", str(tiny_model), QUERY, name)
    wanted = f"no such option: {name.partition('=')[0]}; -- ends the options"
    assert error.value.format_message() == wanted


@pytest.mark.parametrize(
    "name, content",
    [
        ("q.csv", "question,answer\n车卖多少元？,3\n船是什么颜色？,蓝\n车卖多少元？,3\n"),
        ("q.csv", "id,query\n1,车卖多少元？\n2,船是什么颜色？\n"),
        ("q.jsonl", '{"query": "车卖多少元？"}\n{"query": ""}\n{"query": "船是什么颜色？"}\n'),
        ("q.txt", "车卖多少元？\n\n船是什么颜色？\n"),
    ],
)
def test_queries_of_a_table_are_ranked_too(tiny_model, tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "a.txt").write_text("红色的车\n蓝色的船\n", encoding="utf-8")
    out = said(capsys, tiny_model, "--batch", tmp_path / name, tmp_path / "a.txt", "--json")
    assert [json.loads(line)["query"] for line in out.splitlines()] == [
        "车卖多少元？",
        "船是什么颜色？",
    ]


def test_queries_may_come_from_standard_input(tiny_model, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.txt").write_text("红色的车\n蓝色的船\n", encoding="utf-8")
    given(monkeypatch, "车卖多少元？\n".encode())
    out = said(capsys, tiny_model, "--batch", "-", tmp_path / "a.txt", "--json")
    assert json.loads(out)["query"] == "车卖多少元？"


@pytest.mark.parametrize(
    "content, message",
    [
        ("红色的车".encode("gbk"), "standard input: not UTF-8; give a file, or convert it"),
        ("红色的车".encode("utf-16"), "standard input: not UTF-8; give a file, or convert it"),
        (b" \n\n", "standard input: there is no passage to rank"),
    ],
)
def test_standard_input_that_cannot_be_ranked_is_refused(tiny_model, monkeypatch, content, message):
    given(monkeypatch, content)
    with pytest.raises(InputError) as error:
        call("rank", str(tiny_model), QUERY)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("MODEL", QUERY, "none.txt"), "none.txt: no such file"),
        (
            ("MODEL", QUERY, "a.md"),
            "a.md: cannot read '.md' tables; use one of .csv, .xlsx, .jsonl, .parquet, .json, .txt",
        ),
        (
            ("MODEL", "q.doc", "a.txt", "--batch"),
            "q.doc: cannot read '.doc' tables; use one of .csv, .xlsx, .jsonl, .parquet, .json, "
            ".txt",
        ),
        (
            ("MODEL", "a.csv", "a.txt", "--batch"),
            "a.csv: no column question or query among 'uuid', 'words'; rename that of the queries",
        ),
        (
            ("MODEL", QUERY, "-", "-"),
            re.escape("standard input (-) can be read once; give a file for the other"),
        ),
        (
            ("MODEL", "-", "--batch"),
            re.escape("standard input (-) can be read once; give a file for the other"),
        ),
        (
            ("MODEL", QUERY, "a.csv"),
            "a.csv: no column doc or text or passage among 'uuid', 'words'",
        ),
        (("MODEL", QUERY, "empty.txt"), "empty.txt: there is no passage to rank"),
        (("MODEL", "  ", "a.txt"), "^the query is empty$"),
        (("MODEL", "empty.txt", "a.txt", "--batch"), "empty.txt: there is no query in it"),
        (
            ("FOLDER", QUERY, "a.txt"),
            "no config.json, so no checkpoint; give a folder such as models/reranker",
        ),
    ],
)
def test_files_and_queries_that_cannot_be_ranked_are_refused(
    tiny_model, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("红色的车", encoding="utf-8")
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "a.csv").write_text("uuid,words\n1,红色的车\n", encoding="utf-8")
    for name in ("a.md", "q.doc"):
        (tmp_path / name).write_text("红色的车\n", encoding="utf-8")
    names = {"MODEL": str(tiny_model), "FOLDER": str(tmp_path)}
    with pytest.raises(InputError, match=message):
        call("rank", *(names.get(argument, argument) for argument in arguments))


def test_garbage_collection_is_enabled_again_after_loading_or_a_failure(
    tiny_model, tmp_path, capsys
):
    (tmp_path / "a.csv").write_text("uuid,doc\n1,红色的车\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("红色的车\n", encoding="utf-8")
    said(capsys, tiny_model, QUERY, tmp_path / "a.csv")
    assert gc.isenabled()
    with pytest.raises(InputError):
        call("rank", str(tmp_path), QUERY, str(tmp_path / "a.txt"))
    assert gc.isenabled()


def test_an_error_is_one_line_and_a_result_goes_to_standard_output(tiny_model):
    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "tunerank", "rank", *arguments]
        return subprocess.run(
            command, cwd=ROOT / "src", input=given, capture_output=True, text=True
        )

    done = run(str(tiny_model), QUERY, given="红色的车\n蓝色的船\n")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2 and done.stderr == ""
    failed = run(str(tiny_model), QUERY)
    assert (
        failed.returncode == 1
        and failed.stderr == "error: standard input: there is no passage to rank\n"
    )


# Streams that end, are full, or have another encoding. Each command is a process of its own.

MANY = "".join(f"红色的车{number}号停在很长很长的街上\n" for number in range(4000))
"""A text that is larger than the buffer of a pipe."""


def process(*arguments: str, code: str = "", **options) -> subprocess.Popen:
    """Start the command as a process, which runs `code` first."""
    start = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); "
        "from tunerank.commands.app import main\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", f"{start}{code}\nmain()", *map(str, arguments)]
    return subprocess.Popen(command, **(pipes | {"env": ENVIRONMENT} | options))


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(tiny_model, tmp_path):
    (tmp_path / "many.txt").write_text(MANY, encoding="utf-8")
    command = f"{sys.executable} -m tunerank rank {tiny_model} {QUERY} many.txt --top-k 0 | head -1"
    done = subprocess.run(
        ["bash", "-c", f'{command}; echo "${{PIPESTATUS[*]}}"'],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    first, codes = done.stdout.splitlines()
    assert first.startswith("  1  ") and codes == "141 0"
    assert "error" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("rank", "--help"), ("compare", "main"), ("verify", "--help")]
)
def test_a_reader_that_is_gone_at_the_start_is_not_an_error(tmp_path, arguments):
    committed_ranks(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    started = process(*arguments, stdout=writer, cwd=tmp_path)
    os.close(writer)
    _, err = started.communicate()
    assert (started.returncode, err) == (141, b"")


@pytest.mark.parametrize("arguments", [("--help",), ("compare", "main"), ("compare", "--machine")])
def test_a_full_disk_at_the_output_is_reported_in_one_line(tmp_path, arguments):
    committed_ranks(tmp_path)
    with open("/dev/full", "wb") as full:
        started = process(*arguments, stdout=full, cwd=tmp_path)
        _, err = started.communicate()
    name = "tunerank" if arguments[0] == "--help" else "compare"
    line = f"error: {name}: the disk or its quota is full; free some space, then run it again\n"
    assert (started.returncode, err.decode()) == (1, line)


def test_a_result_comes_before_the_error_that_follows_it(tmp_path):
    committed_ranks(tmp_path)
    started = process(
        "compare", "main", "--require", "better", cwd=tmp_path, stderr=subprocess.STDOUT
    )
    out, _ = started.communicate()
    first, *_, last = out.decode().splitlines()
    assert started.returncode == 1
    assert first == "the working tree against main, fused by MRR@10: no evidence"
    assert last == "error: the working tree is required to be better: no evidence by MRR@10"


@pytest.mark.parametrize("arguments", [("--help",), ("compare", "main")])
def test_a_closed_output_is_not_an_error(tmp_path, arguments):
    committed_ranks(tmp_path)
    started = process(*arguments, cwd=tmp_path, preexec_fn=lambda: os.close(1), stdout=None)
    _, err = started.communicate()
    assert (started.returncode, err) == (0, b"")


@pytest.mark.parametrize("encoding, readable", [("gbk", "红色的车"), ("latin-1", "\\u7ea2")])
def test_characters_that_the_output_cannot_write_are_escaped(tiny_model, encoding, readable):
    env = ENVIRONMENT | {"PYTHONIOENCODING": encoding}
    for options in ((), ("--json",)):
        started = process("rank", tiny_model, QUERY, *options, env=env)
        out, err = started.communicate("红色的车😀ñ\n".encode())
        assert started.returncode == 0, err
        text = out.decode(encoding)
        assert readable in text and "\\ud83d\\ude00" in text
        if options:
            assert json.loads(text)["ranked"][0]["passage"] == "红色的车😀ñ"


@pytest.mark.parametrize(
    "name, patched",
    [
        ("rank", "tunerank.commands.rank.read_passages"),
        ("compare", "tunerank.commands.compare.run_of"),
        ("verify", "tunerank.commands.verify.read_lock"),
    ],
)
def test_ctrl_c_is_reported_in_one_line(tiny_model, name, patched):
    module, _, function = patched.rpartition(".")
    code = (
        f"import time, {module} as module\n"
        f"def wait(*_): print('at work', file=sys.stderr, flush=True); time.sleep(600)\n"
        f"module.{function} = wait"
    )
    arguments = {"rank": (tiny_model, QUERY), "compare": ("main",), "verify": ()}[name]
    started = process(name, *arguments, code=code, preexec_fn=hears_ctrl_c)
    assert started.stderr.readline() == b"at work\n"
    started.send_signal(signal.SIGINT)
    out, err = started.communicate()
    line = f"error: {name}: stopped by Ctrl-C; run it again\n"
    assert (started.returncode, out, err.decode()) == (130, b"", line)


def committed_ranks(folder: Path) -> None:
    """Create a repository with metrics that `compare` can read."""
    (folder / "metrics").mkdir()
    ranks = "id,passage,qa_type,seen,bm25,fused\nq0,p0,detailed,True,1,2\n"
    (folder / "metrics/per_query.csv").write_text(ranks, encoding="utf-8")
    git("init", "-q", "-b", "main", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "run", cwd=folder)
