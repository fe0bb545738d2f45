"""Test what `tunerank serve` does with bad requests, clients that misbehave, and too many of them.

The answer is a 4xx of one line in the protocol's form, and other requests have their own answers.
"""

import gc
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection

import httpx2 as httpx
import pytest
from conftest import table_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Running, answer_on, request_head, until

from tunerank.ranker import Ranker
from tunerank.serving.bodies import loaded
from tunerank.serving.limits import Limits, Refused

QUERY = "船是什么颜色？"
DOCS = list(dict.fromkeys(row["doc"] for row in table_rows()))
ASKED = {"query": QUERY, "documents": DOCS[:3]}
IMPATIENT = Limits(header_seconds=0.4, body_seconds=0.4, answer_seconds=0.4)


@pytest.fixture(scope="module")
def server(tiny_model):
    with Running(tiny_model) as running:
        yield running


def line_of(path: str, body, answer: httpx.Response) -> str:
    """Return the message of an error, which must have the form of the protocol."""
    content = answer.json()
    if path == "/rerank" and isinstance(body, dict) and "texts" in body:
        assert content.keys() == {"error", "error_type"}
        return content["error"]
    if path == "/rerank":
        assert content.keys() == {"error"} and content["error"]["code"] == answer.status_code
        assert content["error"].keys() == {"message", "type", "param", "code"}
        return content["error"]["message"]
    assert content.keys() <= {"message", "detail"} and len(set(content.values())) == 1
    return content["message" if path == "/v2/rerank" else "detail"]


def deep(depth: int) -> bytes:
    return b'{"query": ' + b"[" * depth + b"]" * depth + b"}"


VALUES = "the body has more than 100000 keys and values"
BAD = [
    (b"", 400, "the body is no JSON"),
    (b"{", 400, "the body is no JSON"),
    (b"\xff\xfe\xfd", 400, "the body is no JSON"),
    (b'{"query": "\n"}', 400, "the body is no JSON"),
    (b'{"query": ' + b"9" * 5000 + b"}", 400, "the body is no JSON"),
    (deep(40_000), 400, "the body is no JSON"),
    (b"[]", 400, "the body is no JSON object"),
    (b"null", 400, "the body is no JSON object"),
    ({"documents": DOCS}, 400, "query: Field required"),
    ({"query": QUERY}, 400, "documents: Field required"),
    ({"query": "", "documents": DOCS}, 400, "query: empty"),
    ({"query": " \n\t", "documents": DOCS}, 400, "query: empty"),
    ({"query": 7, "documents": DOCS}, 400, "query: Input should be a valid string"),
    ({"query": QUERY, "documents": []}, 400, "documents: empty"),
    ({"query": QUERY, "documents": None}, 400, "documents: Input should be a valid list"),
    ({"query": QUERY, "documents": "text"}, 400, "documents: Input should be a valid list"),
    ({"query": QUERY, "documents": [*DOCS, 7]}, 400, "documents[12]: give a string, or an object"),
    ({"query": QUERY, "documents": [None]}, 400, "documents[0]: give a string, or an object"),
    ({"query": QUERY, "documents": [{"image": "a"}]}, 400, "documents[0]: give a string, or an"),
    ({"query": QUERY, "documents": [{"text": 7}]}, 400, "documents[0]: give a string, or an"),
    ({"query": QUERY, "documents": [{"text": "a", "title": 7}]}, 400, "documents[0]: give a st"),
    (ASKED | {"top_n": -1}, 400, "top_n: Input should be greater than or equal to 0"),
    (ASKED | {"top_n": "many"}, 400, "top_n: Input should be a valid integer"),
    (ASKED | {"top_n": float("nan")}, 400, "top_n: Input should be a"),
    (ASKED | {"max_tokens_per_doc": -5}, 400, "max_tokens_per_doc: Input should be greater"),
    (ASKED | {"rank_fields": ["body"]}, 400, "rank_fields[0]: Input should be 'text' or 'title'"),
    (ASKED | {"model": "rerank-v3.5"}, 404, "model: here is only tiny, models/tiny"),
    (ASKED | {"model": ["tiny"]}, 400, "model: Input should be a valid string"),
    (ASKED | {"documents": ["a"] * 10_000}, 413, "documents: 10000; at most 1000 are scored in a"),
    (ASKED | {"documents": ["a", "b" * 200_000]}, 413, "document 1: 200000 characters; at most 1"),
    (ASKED | {"query": "b" * 200_000}, 413, "query: 200000 characters; at most 100000"),
    (ASKED | {"documents": ["b" * 10_000_000]}, 413, "the body is longer than 8388608 bytes"),
    (b"[" * 9_000_000, 413, "the body is longer than 8388608 bytes"),
    (b'{"query": "a", "other": [' + b"[]," * 60_000 + b"[]]}", 413, VALUES),
    (b'{"query": "a", "documents": [' + b'"\\\\",' * 60_000 + b'"a"]}', 413, VALUES),
    (json.dumps(ASKED | {"other": [7] * 100_000}).encode("utf-16"), 413, VALUES),
]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize(("body", "status", "line"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_bad_request_gets_one_line_in_the_form_of_its_protocol(server, path, body, status, line):
    answer = server.post(path, body)
    found = line_of(path, body, answer)
    assert (answer.status_code, found[: len(line)]) == (status, line)
    assert "\n" not in found and len(found) < 200 and "Traceback" not in answer.text
    assert server.post(path, ASKED).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "line"),
    [
        ({"texts": []}, 422, "texts: empty"),
        ({"texts": [7]}, 422, "texts[0]: give a string, or an object"),
        ({"texts": DOCS, "query": ""}, 422, "query: empty"),
        ({"texts": DOCS, "raw_scores": "maybe"}, 422, "raw_scores: Input should be a valid bool"),
        ({"texts": DOCS, "truncation_direction": "Left"}, 422, "truncation_direction: Input shou"),
        ({"texts": ["a"] * 1001}, 413, "texts: 1001; at most 1000 are scored in a request"),
        ({"texts": DOCS, "model": "other"}, 404, "model: here is only tiny, models/tiny"),
    ],
)
def test_text_embeddings_inference_has_its_own_form_of_errors(server, change, status, line):
    body = {"query": QUERY} | change
    answer = server.post("/rerank", body)
    assert (answer.status_code, line_of("/rerank", body, answer)[: len(line)]) == (status, line)
    assert answer.json()["error_type"] == "validation"


def test_commas_and_brackets_in_texts_are_no_values(server):
    text = '"[{,' * 20_000 + "\\"
    body = ASKED | {"documents": [text, "a"], "return_documents": True}
    for content in (json.dumps(body).encode(), json.dumps(body).encode("utf-16")):
        answer = server.post("/rerank", content)
        found = {row["index"]: row["document"] for row in answer.json()["results"]}
        assert found == {0: text, 1: "a"}


def test_each_string_comma_and_bracket_counts_once():
    body = rb'{"a,[{": ["\"[,", 2]}'
    assert loaded(body, 5) == {"a,[{": ['"[,', 2]}
    with pytest.raises(Refused, match="more than 4 keys and values"):
        loaded(body, 4)


def test_what_nobody_reads_of_a_body_is_not_kept(tiny_model):
    marker = f"marker {id(tiny_model)}"
    body = f'{{"query": "a", "documents": ["b"], "other": ["{marker}"]}}'.encode()
    with Running(tiny_model) as running, ThreadPoolExecutor() as pool:
        running.gate.clear()
        asked = pool.submit(running.post, "/rerank", body)
        assert running.waiting.wait(30)
        lists = [one for one in gc.get_objects() if type(one) is list and len(one) == 1]
        assert not [one for one in lists if type(one[0]) is str and one[0] == marker]
        running.gate.set()
        assert asked.result().status_code == 200


def test_other_paths_and_methods_get_one_line(server):
    assert server.client.get("/rerank").status_code == 405
    assert server.client.get("/nothing").json() == {"detail": "Not Found"}
    assert server.post("/rerank/", ASKED).status_code == 404  # and no redirect
    assert server.client.put("/v2/rerank", content=b"{}").json() == {
        "message": "Method Not Allowed"
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
FIELDS = (
    "query",
    "documents",
    "texts",
    "top_n",
    "model",
    "raw_scores",
    "return_documents",
    "whole",
)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["/rerank", "/v1/rerank", "/v2/rerank", "/search"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON | st.binary(max_size=60),
)
def test_no_body_causes_an_error_of_the_server(server, path, body):
    answer = server.post(path, body)
    assert answer.status_code < 500 and answer.json() is not None


def test_an_upload_is_refused_while_it_arrives(tiny_model):
    with Running(tiny_model, Limits(body=100_000)) as running:
        sent = 0

        def endless():
            nonlocal sent
            yield b'{"query": "'
            for _ in range(100_000):
                sent += 10_000
                yield b"a" * 10_000

        with suppress(httpx.TransportError):  # closed before the client looked at the answer
            assert running.client.post("/rerank", content=endless()).status_code == 413
        assert sent < 100_000_000
        assert running.metric("requests_total", path="/rerank", status="413") == 1
        assert running.metric("body_bytes") == 0
        # Whoever waits for a word before sending is refused without sending.
        with running.connect() as connection:
            connection.sendall(request_head("/rerank", 10**12, "expect: 100-continue"))
            status, body = answer_on(connection)
            assert status == 413 and b"longer than 100000 bytes" in body


def test_bodies_of_all_requests_have_one_limit(tiny_model):
    """Memory is bounded by what all clients have sent and not yet got an answer for."""
    with Running(tiny_model, Limits(bodies=150_000)) as running, ThreadPoolExecutor() as pool:
        running.gate.clear()
        large = {"query": QUERY, "texts": ["a" * 90_000]}
        first = pool.submit(running.post, "/rerank", large)
        assert running.waiting.wait(30)
        assert running.metric("body_bytes") > 90_000
        answer = running.post("/rerank", large)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        chunked = json.dumps(large).encode()
        answer = running.client.post("/rerank", content=iter([chunked[:50_000], chunked[50_000:]]))
        assert answer.status_code == 429
        small = pool.submit(running.post, "/rerank", {"query": QUERY, "texts": ["a" * 60_000]})
        until(lambda: running.metric("queue_requests") == 2)
        running.gate.set()
        assert first.result().status_code == small.result().status_code == 200
        assert running.post("/rerank", large).status_code == 200
        assert running.metric("body_bytes") == 0


KEY = "0123456789abcdef"


def test_with_a_key_only_health_is_open(tiny_model):
    with Running(tiny_model, key=KEY, hosts=None) as running:
        client = running.client
        assert client.get("/health").status_code == 200
        right = {"authorization": f"Bearer {KEY}"}
        for path in ("/metrics", "/docs", "/openapi.json", "/info", "/models", "/nothing"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert client.get(path, headers=right).status_code in (200, 404)
        for value in ("", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY):
            answer = running.post("/v2/rerank", ASKED, headers={"authorization": value})
            assert answer.status_code == 401
            assert answer.json()["message"].startswith("Authorization: Bearer and the key")
            assert KEY not in answer.text
        foreign = {b"authorization": "Bearer 密钥".encode()}
        assert running.post("/rerank", ASKED, headers=foreign).status_code == 401
        for scheme in ("Bearer", "bearer", "BEARER"):
            headers = {"authorization": f"{scheme} {KEY}"}
            assert running.post("/v2/rerank", ASKED, headers=headers).status_code == 200


def test_without_a_key_other_names_of_this_machine_are_refused(tiny_model):
    """A page of another site may let its own name point to 127.0.0.1."""
    with Running(tiny_model, hosts={"localhost", "127.0.0.1", "::1"}) as running:
        for host in ("localhost", "127.0.0.1:8080", "LOCALHOST:1", "[::1]:80", "[::1]"):
            answer = running.client.get("/health", headers={"host": host})
            assert answer.status_code == 200, host
        for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""):
            answer = running.post("/rerank", ASKED, headers={"host": host})
            assert answer.status_code == 403, host
            assert "TUNERANK_API_KEY" in line_of("/rerank", ASKED, answer)


def test_a_full_queue_answers_429_with_retry_after(tiny_model):
    with Running(tiny_model, Limits(requests=3, pairs=9)) as running, ThreadPoolExecutor() as pool:
        running.gate.clear()
        asked = [pool.submit(running.post, "/v1/rerank", ASKED)]
        assert running.waiting.wait(30)
        asked.append(pool.submit(running.post, "/v1/rerank", ASKED))
        until(lambda: running.metric("queue_pairs") == 6)
        answer = running.post("/v1/rerank", ASKED | {"documents": DOCS[:4]})
        assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.json()["detail"].startswith("too busy: 2 requests with 6 pairs are waiting")
        asked.append(pool.submit(running.post, "/v1/rerank", ASKED | {"documents": DOCS[:1]}))
        until(lambda: running.metric("queue_requests") == 3)
        answer = running.post("/rerank", {"query": QUERY, "texts": DOCS[:1]})
        assert (answer.status_code, answer.json()["error_type"]) == (429, "overloaded")
        answer = running.post("/rerank", ASKED | {"documents": DOCS[:10]})
        assert answer.status_code == 413  # it would not fit into an empty queue
        running.gate.set()
        assert [one.result().status_code for one in asked] == [200] * 3
        assert running.metric("queue_pairs") == running.metric("queue_requests") == 0


def test_what_its_client_has_given_up_is_not_computed(tiny_model):
    with Running(tiny_model) as running, ThreadPoolExecutor() as pool:
        running.gate.clear()
        first = pool.submit(running.post, "/rerank", {"query": QUERY, "texts": DOCS[:2]})
        assert running.waiting.wait(30)
        body = json.dumps({"query": QUERY, "texts": DOCS}).encode()
        with running.connect() as connection:
            connection.sendall(request_head("/rerank", len(body)) + body)
            until(lambda: running.metric("queue_requests") == 2)
        until(lambda: running.metric("queue_requests") == 1)
        running.gate.set()
        assert len(first.result().json()) == 2
        assert running.post("/rerank", {"query": QUERY, "texts": DOCS[:3]}).status_code == 200
        assert running.metric("pairs_scored_total") == 5
        assert running.metric("requests_total", path="/rerank", status="499") == 1


def test_one_request_that_fails_leaves_others_their_answers(tiny_model, capfd):
    ranker = Ranker(tiny_model, "fp32")
    with Running(tiny_model) as running, ThreadPoolExecutor() as pool:
        views = running.service.scorer.views

        def failing(passages, whole):
            if passages[0].text == "失败" and threading.current_thread().name == "worker":
                raise RuntimeError("the model is broken")
            return views(passages, whole)

        running.service.scorer.views = failing
        bodies = [ASKED if i % 3 else ASKED | {"documents": ["失败"]} for i in range(30)]
        answers = list(pool.map(lambda body: running.post("/v2/rerank", body), bodies))
        expected = {one.index: one.score for one in ranker.rank(QUERY, ASKED["documents"])}
        order = sorted(expected, key=lambda index: -expected[index])
        for body, answer in zip(bodies, answers):
            if body is ASKED:
                assert [row["index"] for row in answer.json()["results"]] == order
            else:
                assert answer.status_code == 500
                assert answer.json() == {"message": "unexpected error; the server's log has it"}
    assert "RuntimeError: the model is broken" in capfd.readouterr().err


def test_a_score_that_is_no_number_is_an_error_and_no_answer(tiny_model):
    with Running(tiny_model) as running:
        running.service.scorer.encoder.logits = lambda ids: [float("nan")] * len(ids)
        answer = running.post("/v2/rerank", ASKED)
        assert answer.status_code == 500
        assert answer.json()["message"].startswith("the model gives a score that is no number")


def test_a_client_that_sends_no_headers_is_cut_off(tiny_model):
    with Running(tiny_model, IMPATIENT) as running:
        for start in (b"", b"POST /rer", b"POST /rerank HTTP/1.1\r\nhost: local"):
            with running.connect() as connection:
                connection.sendall(start)
                status, body = answer_on(connection)
                assert (status, json.loads(body)) == (
                    408, {"detail": "no request has arrived within 0.4 s"}
                )  # fmt: skip


def test_a_connection_is_kept_for_the_next_request(tiny_model):
    """Longer than without a first one: a proxy would lose what it sends while we close."""
    with Running(tiny_model, IMPATIENT) as running:
        kept = HTTPConnection(*running.address, timeout=30)
        kept.request("GET", "/health")
        assert kept.getresponse().read() == b'{"status":"ok"}'
        with running.connect() as silent:
            assert answer_on(silent)[0] == 408
        kept.request("GET", "/health")
        assert kept.getresponse().read() == b'{"status":"ok"}'
        kept.close()
    with Running(tiny_model, Limits(idle_seconds=0.4)) as running:
        with running.connect() as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert answer_on(connection) == (200, b'{"status":"ok"}')  # then closed, no word


def test_the_last_answer_of_a_connection_says_so(tiny_model):
    with Running(tiny_model) as running, ThreadPoolExecutor() as pool:
        assert "connection" not in running.post("/rerank", ASKED).headers
        running.gate.clear()
        asked = pool.submit(running.post, "/rerank", ASKED)
        until(lambda: running.metric("queue_requests") == 1)
        running.server.should_exit = True
        running.gate.set()
        answer = asked.result()
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_a_client_that_drips_is_cut_off(tiny_model):
    """Each byte would start a timeout for the next one again."""
    stop = threading.Event()

    def drip(connection, data):
        try:
            for byte in data:
                connection.sendall(bytes([byte]))
                if stop.wait(0.1):
                    return
        except OSError:
            return

    with Running(tiny_model, IMPATIENT) as running:
        whole = request_head("/v2/rerank", 10_000)
        answered = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
        for before, dripped, statuses in (
            (b"", whole, {408}),
            (whole, b"{" * 300, {408}),
            (answered, whole, {200}),  # the second request of a connection
            (b"GET /health HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\n", b"a" * 300, {200}),
        ):
            with running.connect() as connection:
                connection.sendall(before)
                thread = threading.Thread(target=drip, args=(connection, dripped))
                thread.start()
                try:
                    status, _ = answer_on(connection)
                except ConnectionResetError:
                    status = None
                stop.set()
                thread.join()
                stop.clear()
                assert status in statuses | {None}
        until(lambda: len(running.server.server_state.connections) <= 1)


def test_a_client_that_does_not_read_its_answer_is_cut_off(tiny_model):
    with Running(tiny_model, IMPATIENT) as running:
        body = json.dumps(
            {"query": QUERY, "documents": ["a" * 50_000] * 100, "return_documents": True}
        ).encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(running.address)
            connection.sendall(request_head("/rerank", len(body)) + body)
            until(lambda: running.metric("pairs_scored_total") > 0)
            until(lambda: len(running.server.server_state.connections) <= 1)
        assert running.metric("body_bytes") == 0


def test_what_is_no_http_gets_one_line(server):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\n:\r\n\r\n"):
        with server.connect() as connection:
            connection.sendall(data)
            status, body = answer_on(connection)
            assert (status, json.loads(body)["detail"]) == (400, "this is not an HTTP/1.1 request")


def test_headers_have_a_limit(server):
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\na: " + b"a" * 100_000)
        assert answer_on(connection)[0] == 400


def test_connections_have_a_limit(tiny_model):
    with Running(tiny_model, Limits(connections=4)) as running:
        held = [running.connect() for _ in range(4)]
        until(lambda: len(running.server.server_state.connections) == 4)
        answer = running.post("/v2/rerank", ASKED)
        assert (answer.status_code, answer.json()["message"]) == (
            429,
            "too busy: too many connections",
        )
        running.client.close()
        held += [running.connect() for _ in range(20)]
        until(lambda: len(running.server.server_state.connections) <= 8)
        for connection in held:
            connection.close()
        until(lambda: not running.server.server_state.connections)
        answer = httpx.post(f"{running.url}/v2/rerank", json=ASKED, trust_env=False)
        assert answer.status_code == 200


def test_a_connection_over_the_limit_does_not_stay_refused(tiny_model):
    with Running(tiny_model, Limits(connections=2)) as running:
        held = [running.connect() for _ in range(2)]
        until(lambda: len(running.server.server_state.connections) == 2)
        answer = running.post("/rerank", ASKED)
        assert (answer.status_code, answer.headers["connection"]) == (429, "close")
        for connection in held:
            connection.close()
        until(lambda: len(running.server.server_state.connections) <= 1)
        assert running.post("/rerank", ASKED).status_code == 200  # of the same client


def test_idle_connections_keep_nobody_waiting(server):
    held = [server.connect() for _ in range(300)]
    try:
        assert server.post("/rerank", ASKED).status_code == 200
        # All at once: each gets its own answer, or is told to come again.
        body = json.dumps(ASKED).encode()
        for connection in held:
            connection.sendall(request_head("/v2/rerank", len(body), "connection: close") + body)
        statuses = [answer_on(connection)[0] for connection in held]
    finally:
        for connection in held:
            connection.close()
    assert set(statuses) <= {200, 429} and statuses.count(200) >= 64


def test_clients_that_break_off_and_bad_requests_disturb_nobody(server, tiny_model):
    """A hundredth of each is in benchmarks/serving.py for minutes; here it is a third."""
    ranker = Ranker(tiny_model, "fp32")
    expected = {
        question: {one.index: one.score for one in ranker.rank(question, DOCS[:5])}
        for question in {row["question"] for row in table_rows()}
    }

    def ask(number: int) -> None:
        question = sorted(expected)[number % len(expected)]
        body = {"query": question, "texts": DOCS[:5], "raw_scores": True}
        data = json.dumps(body).encode()
        if number % 3 == 0:
            with server.connect() as connection:
                connection.sendall(request_head("/rerank", len(data)) + data[: number * 7])
            return
        if number % 3 == 1:
            assert server.post("/rerank", data[:-9]).status_code == 400
            return
        answer = server.post("/rerank", body)
        assert answer.status_code in (200, 429)
        if answer.status_code == 200:
            for row in answer.json():
                assert row["score"] == pytest.approx(expected[question][row["index"]], abs=1e-4)

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(ask, range(150)))
    until(lambda: server.metric("queue_requests") == 0)
    assert server.metric("body_bytes") == 0
