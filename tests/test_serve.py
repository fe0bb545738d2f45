"""Test `tunerank serve`: the answers of each protocol have the scores of Ranker."""

import json
import math
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest
from conftest import COMMAND, ENVIRONMENT, ROOT, started, table_rows, tunerank
from server import Running, until
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tunerank.data.passages import Passage
from tunerank.models.checkpoint import save
from tunerank.models.cross_encoder import pair_ids
from tunerank.ranker import Ranker
from tunerank.searcher import Searcher
from tunerank.serving.jobs import Rerank
from tunerank.serving.limits import Limits
from tunerank.serving.metrics import Metrics
from tunerank.serving.scoring import Scorer
from tunerank.serving.worker import Worker

QUERY = "船是什么颜色？"
DOCS = list(dict.fromkeys(row["doc"] for row in table_rows()))
QUESTIONS = [row["question"] for row in table_rows()]
DIGIT = 1e-4
"""docs/serving.md: in fp32 the same pair has the same score in any batch, within this."""


@pytest.fixture(scope="module")
def ranker(tiny_model):
    ranker = Ranker(tiny_model, "fp32")
    ranker.bars, ranker.encoder.max_length = False, 128  # the positions that the tiny model has
    return ranker


@pytest.fixture(scope="module")
def server(tiny_model):
    with Running(tiny_model) as running:
        yield running


@pytest.fixture(scope="module")
def logits(ranker):
    """Return document -> logit of QUERY, of one pair at a time."""
    return {doc: ranker.rank(QUERY, [doc])[0].score for doc in [*DOCS, ""]}


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def best_first(logits):
    return sorted(range(len(DOCS)), key=lambda index: -logits[DOCS[index]])


def assert_scores(rows, key, expected):
    """Check that rows are (index, score), best first, of all documents."""
    assert sorted(row["index"] for row in rows) == list(range(len(expected)))
    for row in rows:
        assert row[key] == pytest.approx(expected[row["index"]], abs=DIGIT)
    assert [row[key] for row in rows] == sorted((row[key] for row in rows), reverse=True)


def test_the_order_of_the_documents_can_be_told(logits):
    values = sorted(logits[doc] for doc in DOCS)
    assert min(b - a for a, b in zip(values, values[1:])) > DIGIT


def test_text_embeddings_inference_gets_a_list_of_index_and_score(server, logits):
    rows = server.post("/rerank", {"query": QUERY, "texts": DOCS}).json()
    assert all(row.keys() == {"index", "score"} for row in rows)
    assert_scores(rows, "score", [sigmoid(logits[doc]) for doc in DOCS])
    body = {"query": QUERY, "texts": DOCS, "raw_scores": True, "return_text": True}
    rows = server.post("/rerank", body | {"truncate": False}).json()
    assert [row["text"] for row in rows] == [DOCS[index] for index in best_first(logits)]
    assert_scores(rows, "score", [logits[doc] for doc in DOCS])


def test_infinity_gets_documents_as_strings_if_it_asks(server, logits):
    body = {"model": "tiny", "query": QUERY, "documents": DOCS, "top_n": 3}
    answer = server.post("/rerank", body | {"return_documents": True}).json()
    assert answer["object"] == "rerank" and answer["model"] == "tiny" and answer["id"]
    assert [row["index"] for row in answer["results"]] == best_first(logits)[:3]
    assert [row["document"] for row in answer["results"]] == [
        DOCS[index] for index in best_first(logits)[:3]
    ]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 100
    rows = server.post("/rerank", body | {"return_documents": False}).json()["results"]
    assert all(row.keys() == {"index", "relevance_score"} for row in rows)
    rows = server.post("/rerank", body | {"top_n": None, "raw_scores": True}).json()["results"]
    assert_scores(rows, "relevance_score", [logits[doc] for doc in DOCS])


def test_vllm_gets_documents_as_objects(server, logits):
    answer = server.post("/rerank", {"query": QUERY, "documents": DOCS, "top_n": 0}).json()
    assert_scores(answer["results"], "relevance_score", [sigmoid(logits[doc]) for doc in DOCS])
    assert all(row["document"] == {"text": DOCS[row["index"]]} for row in answer["results"])


def test_jina_and_cohere_share_v1(server, logits):
    body = {"model": "tiny", "query": QUERY, "documents": [{"text": doc} for doc in DOCS]}
    answer = server.post("/v1/rerank", body).json()
    assert_scores(answer["results"], "relevance_score", [sigmoid(logits[doc]) for doc in DOCS])
    assert all(row["document"] == {"text": DOCS[row["index"]]} for row in answer["results"])
    assert answer["usage"]["total_tokens"] == answer["meta"]["tokens"]["input_tokens"]
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    answer = server.post("/v1/rerank", body | {"top_n": 2, "return_documents": False}).json()
    assert [row.keys() for row in answer["results"]] == [{"index", "relevance_score"}] * 2


def test_cohere_v2_gets_no_documents(server, logits):
    body = {"model": "tiny", "query": QUERY, "documents": DOCS, "top_n": 4}
    answer = server.post("/v2/rerank", body | {"max_tokens_per_doc": 4096, "priority": 0}).json()
    assert answer.keys() == {"id", "results", "meta"} and "warnings" not in answer["meta"]
    assert [row["index"] for row in answer["results"]] == best_first(logits)[:4]
    assert all(row.keys() == {"index", "relevance_score"} for row in answer["results"])
    rows = server.post("/v2/rerank", body | {"return_documents": True}).json()["results"]
    assert [row["document"]["text"] for row in rows] == [DOCS[row["index"]] for row in rows]


def test_a_score_is_not_scaled_to_the_others_of_its_request(server, logits):
    for some in (DOCS[:1], DOCS[:2], DOCS[:5]):
        rows = server.post("/v2/rerank", {"query": QUERY, "documents": some}).json()["results"]
        assert_scores(rows, "relevance_score", [sigmoid(logits[doc]) for doc in some])


@pytest.mark.parametrize("place", [0, 7, 23])
@pytest.mark.parametrize("empty", ["", "   ", "\u3000", {"text": ""}])
def test_an_empty_document_among_24_has_a_score_and_moves_no_index(server, logits, place, empty):
    documents = [*DOCS, *DOCS[:11]]
    documents.insert(place, empty)
    body = {"query": QUERY, "documents": documents, "raw_scores": True}
    answer = server.post("/rerank", body)
    expected = [logits[one] if one in DOCS else logits[""] for one in documents if one != empty]
    expected.insert(place, logits[""])
    assert len(documents) == 24
    assert_scores(answer.json()["results"], "relevance_score", expected)


def test_equal_documents_have_equal_scores_in_the_order_given(server):
    body = {"query": QUERY, "documents": [DOCS[3], DOCS[1], DOCS[3], DOCS[3]]}
    rows = server.post("/rerank", body).json()["results"]
    places = [row["index"] for row in rows if row["index"] != 1]
    assert places == [0, 2, 3]
    assert len({row["relevance_score"] for row in rows}) == 2


def test_many_clients_at_once_get_their_own_answers(server, ranker):
    """Each document's score is that of the pair alone, whatever else was in its batch."""
    asked = []
    for number, question in enumerate(QUESTIONS):
        documents = [doc[: 10 + number] if i % 2 else doc for i, doc in enumerate(DOCS)]
        asked.append((question, documents[number % 5 :]))

    def ask(one):
        body = {"query": one[0], "texts": one[1], "raw_scores": True}
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            return client.post("/rerank", json=body).json()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, asked))
    for (question, documents), rows in zip(asked, answers):
        expected = [ranker.rank(question, [doc])[0].score for doc in documents]
        assert_scores(rows, "score", expected)


def test_requests_that_arrive_together_are_scored_together(tiny_model, ranker):
    limits, metrics = Limits(), Metrics()
    worker = Worker(Scorer(Ranker(tiny_model, "fp32", 4096)), None, limits, metrics)
    jobs = [
        Rerank(question, [Passage("", doc) for doc in DOCS[:3]], True, None, cost=3)
        for question in QUESTIONS[:5]
    ]
    for job in jobs:
        worker.submit(job)
    assert (worker.requests, worker.pairs) == (5, 15)
    worker.start()
    for question, job in zip(QUESTIONS, jobs):
        expected = [ranker.rank(question, [doc])[0].score for doc in DOCS[:3]]
        assert job.future.result(60).logits == pytest.approx(expected, abs=DIGIT)
    worker.close()
    text = metrics.text().decode()
    assert f"tunerank_batch_pairs_count {worker.scorer.threads:.1f}" in text
    assert "tunerank_pairs_scored_total 15.0" in text
    assert (worker.requests, worker.pairs) == (0, 0)


def test_a_small_request_does_not_wait_for_a_large_one(tiny_model):
    worker = Worker(Scorer(Ranker(tiny_model, "fp32", 128)), None, Limits(), Metrics())
    order = []
    for name, count in (("large", 12), ("small", 1)):
        documents = [Passage("", doc) for doc in DOCS[:count]]
        job = Rerank(QUERY, documents, True, None, cost=count)
        job.future.add_done_callback(lambda _, name=name: order.append(name))
        worker.submit(job)
    worker.start()
    worker.close()
    assert order == ["small", "large"]


def test_texts_are_cut_by_tokens_and_counted(server, ranker):
    long = [DOCS[0] * 5, DOCS[1], DOCS[2] * 9]
    expected = [ranker.rank(QUERY, [doc])[0].score for doc in long]
    body = {"query": QUERY, "documents": long, "raw_scores": True}
    answer = server.post("/rerank", body)
    assert_scores(answer.json()["results"], "relevance_score", expected)
    assert answer.json()["usage"]["truncated_texts"] == 2
    assert answer.headers["x-truncated-texts"] == "2"
    answer = server.post("/rerank", {"query": QUERY, "texts": long, "truncate": False})
    assert answer.status_code == 200 and answer.headers["x-truncated-texts"] == "2"
    answer = server.post("/v2/rerank", {"query": QUERY * 30, "documents": long}).json()
    assert answer["meta"]["warnings"] == ["not read to the end: the query and 3 documents"]


@pytest.mark.parametrize(("filler", "read"), [("", 2560), (" ", 2560), ("Ω", 40_960)])
@pytest.mark.parametrize("start", ["车", "门是红色的 "])
def test_the_end_of_a_very_long_text_changes_nothing(server, ranker, start, filler, read):
    """The tokenizer is not given all of it. Characters that it does not know are one token."""
    long = start + filler * 30_000 + "窗是白色的，" * 8000
    body = {"query": QUERY, "texts": [DOCS[0], long], "raw_scores": True}
    answer = server.post("/rerank", body)
    expected = [ranker.rank(QUERY, [doc])[0].score for doc in (DOCS[0], long)]
    assert_scores(answer.json(), "score", expected)
    assert answer.headers["x-truncated-texts"] == "1"
    assert len(server.service.scorer.beginning(long, 128)) == read


@pytest.mark.parametrize(
    "query", ["Ω" * 90_000, "Ω" * 90_000 + "车船" * 200, "车" * 9000, "a" + "\u200b" * 9000 + "车"]
)
def test_a_very_long_query_is_read_once_for_all_documents(server, ranker, query):
    scorer, texts = server.service.scorer, [*DOCS, "", DOCS[0] * 30, "Ω" * 9000]
    expected = [ranker.rank(query, [text])[0].score for text in texts]
    body = {"query": query, "texts": texts, "raw_scores": True}
    assert_scores(server.post("/rerank", body).json(), "score", expected)
    pairs = [(query, text) for text in texts]
    assert scorer.pair_ids(query, texts) == pair_ids(scorer.encoder.tokenizer, pairs, 128)


def test_a_text_that_fills_the_model_exactly_is_not_cut(server, ranker):
    """The tiny model reads 128 tokens: query, passage and 4 others."""
    tokenizer = ranker.encoder.tokenizer
    room = 128 - 4 - len(tokenizer(QUERY, add_special_tokens=False)["input_ids"])
    # Each character is a token, and one begins the text.
    for length, cut in ((room - 1, "0"), (room, "1")):
        body = {"query": QUERY, "documents": ["车" * length]}
        assert server.post("/rerank", body).headers["x-truncated-texts"] == cut


def test_max_tokens_per_doc_reads_the_beginning(server, ranker):
    body = {"query": QUERY, "documents": DOCS, "max_tokens_per_doc": 6, "raw_scores": True}
    answer = server.post("/v1/rerank", body)
    # The first of the 6 tokens begins the text.
    expected = [ranker.rank(QUERY, [doc[:5]])[0].score for doc in DOCS]
    assert_scores(answer.json()["results"], "relevance_score", expected)
    assert answer.headers["x-truncated-texts"] == str(len(DOCS))


def test_documents_may_have_titles_and_blanks_around_them(server, ranker):
    documents = [{"text": f" {doc}\n", "title": "手册"} for doc in DOCS]
    body = {"query": f" {QUERY} ", "documents": documents, "raw_scores": True}
    rows = server.post("/rerank", body).json()["results"]
    expected = [ranker.rank(QUERY, [Passage("手册", doc)])[0].score for doc in DOCS]
    assert_scores(rows, "relevance_score", expected)
    assert rows[0]["document"]["text"] == documents[rows[0]["index"]]["text"]  # as it was given


@pytest.mark.parametrize(
    "text", ["车\ud83d", "\udc00灯", "车\x00\x07\x1b[31m门", "\u202e倒", "a\ufffe", "😀" * 20]
)
def test_strange_characters_are_served(server, text):
    body = {"query": QUERY, "documents": [DOCS[0], text], "return_documents": True}
    answer = server.post("/v1/rerank", body)
    assert answer.status_code == 200
    texts = {row["index"]: row["document"]["text"] for row in answer.json()["results"]}
    assert texts[1] == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert all(0 <= row["relevance_score"] <= 1 for row in answer.json()["results"])


@pytest.fixture(scope="module")
def viewed(tiny_model, tmp_path_factory):
    """Return a checkpoint that has learned from views of 10 characters."""
    folder = tmp_path_factory.mktemp("viewed")
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    model.config.reranker = {"shown": 10, "max_length": 64}
    save(model, AutoTokenizer.from_pretrained(tiny_model), folder)
    return folder


@pytest.mark.parametrize("default", [True, False])
def test_documents_are_read_whole_or_in_the_views_of_ranker(viewed, default):
    ranker = Ranker(viewed, "fp32")
    views = {one.index: one.score for one in ranker.rank(QUERY, DOCS)}
    ranker.view_size = 0
    whole = {one.index: one.score for one in ranker.rank(QUERY, DOCS)}
    assert all(abs(views[index] - whole[index]) > DIGIT for index in views)
    with Running(viewed, whole=default) as running:
        for asked, expected in (
            ({}, whole if default else views),
            ({"whole": True}, whole),
            ({"whole": False}, views),
        ):
            body = {"query": QUERY, "texts": DOCS, "raw_scores": True} | asked
            assert_scores(running.post("/rerank", body).json(), "score", expected)
        assert running.client.get("/info").json()["whole"] is default


def test_views_are_counted_without_making_them(viewed):
    scorer = Scorer(Ranker(viewed, "fp32"))
    for length in (0, 1, 9, 10, 11, 14, 15, 16, 20, 21, 1000):
        passages = [Passage("", "车" * length), Passage("手册", "船" * (length + 1))]
        for whole in (False, True):
            assert scorer.count(passages, whole) == len(scorer.views(passages, whole))


def test_the_model_can_be_named_or_not(server):
    for model in ({}, {"model": None}, {"model": ""}, {"model": "models/tiny"}):
        body = {"query": QUERY, "documents": DOCS} | model
        assert server.post("/rerank", body).json()["model"] == "tiny"
    for path in ("/models", "/v1/models"):
        answer = server.client.get(path).json()
        assert [one["id"] for one in answer["data"]] == ["tiny", "models/tiny"]


def test_what_is_served_is_described(server):
    assert server.client.get("/health").json() == {"status": "ok"}
    assert server.client.get("/info").json()["max_input_length"] == 128
    paths = server.client.get("/openapi.json").json()["paths"]
    assert {"/rerank", "/v1/rerank", "/v2/rerank", "/search", "/health", "/metrics"} <= set(paths)
    forms = paths["/rerank"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert [set(form["required"]) for form in forms["oneOf"]] == [
        {"query", "documents"},
        {"query", "texts"},
    ]
    assert "/openapi.json" in server.client.get("/docs").text


def test_prometheus_is_told_what_was_done(tiny_model):
    with Running(tiny_model) as running:
        running.post("/rerank", {"query": QUERY, "documents": DOCS})
        running.post("/rerank", {"query": "", "documents": DOCS})
        running.client.get("/nowhere")
        assert running.metric("requests_total", path="/rerank", status="200") == 1
        assert running.metric("requests_total", path="/rerank", status="400") == 1
        assert running.metric("requests_total", path="other", status="404") == 1
        assert running.metric("request_seconds_count", path="/rerank") == 2
        assert running.metric("pairs_scored_total") == len(DOCS)
        assert running.metric("batch_pairs_sum") == len(DOCS)
        assert running.metric("queue_requests") == running.metric("queue_pairs") == 0
        assert running.metric("body_bytes") == 0


def test_search_without_a_corpus_says_what_has_one(server):
    answer = server.post("/search", {"query": QUERY})
    assert answer.status_code == 404
    assert answer.json()["detail"] == (
        "nothing to search here: serve a repository after dvc repro (tunerank serve .) or a folder "
        "of tunerank export"
    )


def test_search_answers_as_searcher_does(project, tiny_model):
    searcher = Searcher(project, precision="fp32")
    with Running(tiny_model, searcher=searcher) as running:
        systems = running.client.get("/info").json()["systems"]
        assert systems == list(searcher.systems) and "fused" in systems
        for system in systems:
            body = {"query": QUERY, "top_k": 3, "system": system}
            answer = running.post("/search", body).json()
            found = searcher.search(QUERY, 3, system)
            assert [one["passage"] for one in answer["results"]] == [one.passage for one in found]
            for one, expected in zip(answer["results"], found):
                assert one["text"] == expected.text and one["title"] == expected.title
                assert one["span"] == list(expected.span) and one["rank"] == expected.rank
                assert one["score"] == pytest.approx(expected.score, abs=DIGIT)
                assert one["scores"] == pytest.approx(expected.scores, abs=DIGIT)
        answer = running.post("/search", {"query": QUERY, "system": "nothing"})
        assert answer.status_code == 400
        assert answer.json()["detail"] == f"system: here are {', '.join(systems)}"
        answer = running.post("/search", {"query": "a" * 10_001})
        assert answer.status_code == 413
        assert answer.json()["detail"] == "query: 10001 characters; at most 10000"
        answer = running.post("/search", {"query": "a", "candidates": [["p" * 1001, 1]]})
        assert answer.status_code == 400
        line = "candidates[0][0]: String should have at most 1000 characters"
        assert answer.json()["detail"] == line
        # The same model answers both, side by side.
        with ThreadPoolExecutor(8) as pool:
            searches = [
                pool.submit(running.post, "/search", {"query": question, "top_k": 2})
                for question in QUESTIONS[:8]
            ]
            reranks = [
                pool.submit(running.post, "/rerank", {"query": question, "texts": DOCS})
                for question in QUESTIONS[:8]
            ]
        for question, search, rerank in zip(QUESTIONS, searches, reranks):
            found = [one["passage"] for one in search.result().json()["results"]]
            assert found == [one.passage for one in searcher.search(question, 2)]
            assert len(rerank.result().json()) == len(DOCS)


SLOW = f"""
import sys, time; sys.path.insert(0, {str(ROOT / "src")!r})
from tunerank.models.cross_encoder import CrossEncoder
logits = CrossEncoder.logits
def slow(self, ids):
    time.sleep(0.2)
    return logits(self, ids)
CrossEncoder.logits = slow
from tunerank.commands.app import main; main()"""


def serving(code: str, *arguments, cwd: Path, env=ENVIRONMENT):
    """Start `tunerank serve` in a process of its own; return it and its address."""
    command = ["-c", code, "serve", *map(str, arguments), "--port", "0", "--precision", "fp32"]
    process = started(command, cwd, env)
    line = process.stdout.readline()
    found = re.fullmatch(r"(.+): serving on (http://\S+), described at \2/docs\n", line)
    assert found, line + process.communicate()[1]
    return process, found[2]


def test_a_stopped_server_finishes_what_was_asked(tiny_model, tmp_path, ranker):
    process, address = serving(SLOW, tiny_model, cwd=tmp_path)
    texts = [f"{doc}{number}" for number in range(20) for doc in DOCS]
    body = {"query": QUERY, "texts": texts, "raw_scores": True}
    with ThreadPoolExecutor() as pool, httpx.Client(base_url=address, trust_env=False) as client:
        asked = pool.submit(httpx.post, f"{address}/rerank", json=body, timeout=60, trust_env=False)
        until(lambda: "tunerank_queue_requests 1.0" in client.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        rows = asked.result().json()
    expected = {one.index: one.score for one in ranker.rank(QUERY, texts)}
    assert_scores(rows, "score", expected)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.endswith("stopped; what was asked before is answered\n")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health", trust_env=False)


def test_the_command_serves_a_checkpoint_and_names_it(tiny_model, tmp_path, logits):
    process, address = serving(COMMAND, tiny_model, "--name", "mine", cwd=tmp_path)
    try:
        body = {"model": "mine", "query": QUERY, "documents": DOCS}
        answer = httpx.post(f"{address}/v1/rerank", json=body, trust_env=False).json()
        assert [row["index"] for row in answer["results"]] == best_first(logits)
        assert address.startswith("http://127.0.0.1:")
    finally:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130 and err.startswith("error: serve: stopped by Ctrl-C")


@pytest.mark.parametrize("given, kept", [({}, "64"), ({"LRU_CACHE_CAPACITY": "9"}, "9")])
def test_kernels_are_kept_for_few_shapes(given, kept):
    """torch reads the variables when it is imported, and serve.py is imported without it."""
    code = f"""
import os, sys; sys.path.insert(0, {str(ROOT / "src")!r})
from tunerank.commands import serve
serve.bound_kernel_caches()
print("torch" in sys.modules, os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"],
      os.environ["LRU_CACHE_CAPACITY"])"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT | given, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "64", kept], done.stderr


def test_the_command_serves_a_repository_with_its_page(project):
    process, address = serving(COMMAND, ".", "--feedback", "data/feedback", cwd=project)
    try:
        found = httpx.post(f"{address}/search", json={"query": QUERY}, timeout=60, trust_env=False)
        assert len(found.json()["results"]) == 5
        page = httpx.get(f"{address}/", trust_env=False)
        assert page.status_code == 200 and "<html" in page.text
        names = [one["id"] for one in httpx.get(f"{address}/models").json()["data"]]
        assert names == ["repo", ".", "reranker"]
        body = {"query": QUERY, "passage": found.json()["results"][0]["passage"], "label": 1}
        judged = httpx.post(f"{address}/feedback", json=body, trust_env=False)
        assert judged.json() == {"label": 1}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert list((project / "data/feedback").glob("*.csv"))


@pytest.mark.parametrize(
    "arguments, key, line",
    [
        (("nowhere",), None, "nowhere: no such folder; give a checkpoint, a repository or an"),
        ((".",), None, r"\.: no config.json, so no checkpoint; give a folder such as"),
        ((".", "--host", "0.0.0.0"), None, "--host 0.0.0.0: other machines can ask there, so a"),
        ((".", "--host", "no.such.host.invalid"), None, "--host no.such.host.invalid: no such ad"),
        ((".", "--host", "0.0.0.0"), "short", "TUNERANK_API_KEY: give at least 8 ASCII"),
        ((".", "--host", "0.0.0.0"), "with blank ", "TUNERANK_API_KEY: give at least 8 ASCII"),
        ((".", "--host", "203.0.113.7"), "long enough", "203.0.113.7, port 8080: "),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(tmp_path, arguments, key, line):
    env = ENVIRONMENT | ({"TUNERANK_API_KEY": key} if key else {})
    command = [sys.executable, "-c", COMMAND, "serve", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert re.match(f"error: {line}", done.stderr) and done.stderr.count("\n") == 1


def test_an_address_that_is_taken_is_said_in_one_line(server, tiny_model, tmp_path):
    port = server.address[1]
    done = tunerank("serve", tiny_model, "--port", port, cwd=tmp_path)
    assert done.stderr == (
        f"error: 127.0.0.1, port {port}: Address already in use; --port 0 takes a free one\n"
    )
    assert json.loads(server.client.get("/health").text) == {"status": "ok"}
