"""Load `tunerank serve`, beside Infinity with the same checkpoint, or for minutes beyond capacity.

    dvc repro && make interop && python benchmarks/serving.py [--turns 3] [--seconds 60]
    python benchmarks/serving.py --minutes 10

Side by side: servers take turns, each alone on the machine. --clients clients send validation
questions with their first --passages candidates, whole passages with titles, to /rerank, each the
next one as soon as it has an answer. The table has requests a second, their ratio, the seconds that
a request takes, and the share of questions with the first 10 passages in the same order.

With --minutes only this project's server is loaded: its capacity is measured, then requests arrive
at twice that rate. One in 100 is cut off while it is sent, and one in 100 is malformed. Every
answer must be right (the scores of an idle server) or a 429, and a malformed request a 400. The
server's resident memory is printed each half minute.
"""

import argparse
import http.client
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))
INFINITY = ROOT / ".cache/interop/infinity/bin/infinity_emb"
TUNERANK, OTHER = "tunerank serve", "Infinity 0.0.78"
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def requests(count: int) -> list[dict]:
    """Return the requests: a validation question and its first candidates."""
    from tunerank.core.files import read_jsonl
    from tunerank.data.passages import read_passages
    from tunerank.params.load import load

    params = load(ROOT / "params.yaml")
    corpus = read_passages(ROOT / "data/prepared/corpus.jsonl", params.retrieve.title)
    questions = {
        row["id"]: row["question"] for row in read_jsonl(ROOT / "data/prepared/valid.jsonl")
    }
    return [
        {
            "query": questions[row["id"]],
            "documents": [corpus[one["passage"]].view() for one in row["candidates"][:count]],
            "return_documents": False,
        }
        for row in read_jsonl(ROOT / "data/candidates/valid.jsonl")
    ]


@contextmanager
def served(system: str, model: str, precision: str, options: list[str]):
    """Start a server, and yield its port and process once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if system == TUNERANK:
        code = "from tunerank.commands.app import main; main()"
        command = [sys.executable, "-c", code, "serve", model, "--port", port]
        command += ["--precision", precision, *options]
    else:
        kind = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}[precision]
        command = [str(INFINITY), "v2", "--model-id", model, "--engine", "torch", "--dtype", kind]
        command += ["--host", "127.0.0.1", "--port", port, "--no-model-warmup"]
    environment = os.environ | OFFLINE
    if system == TUNERANK:
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])
        )
    else:
        environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while not answers(int(port)):
                if process.poll() is not None:
                    log.seek(0)
                    sys.exit(f"{system} ended:\n{log.read().decode()[-3000:]}")
                time.sleep(0.2)
            yield int(port), process
        finally:
            process.terminate()
            process.wait()


def answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, dict]:
    """Send a request on a connection that stays open; return status and answer."""
    connection.request("POST", "/rerank", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def scores_of(answer: dict) -> dict[int, float]:
    return {row["index"]: row["relevance_score"] for row in answer["results"]}


def first_ten(answer: dict) -> list[int]:
    scores = scores_of(answer)
    return sorted(scores, key=lambda index: (-scores[index], index))[:10]


def load_closed(port: int, bodies: list[bytes], clients: int, seconds: float) -> dict:
    """Let clients ask one request after the other; return rate, seconds and orders."""
    turn, end = itertools.count(), time.monotonic() + seconds
    taken: list[float] = []
    orders: dict[int, list[int]] = {}

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while time.monotonic() < end:
            number = next(turn) % len(bodies)
            start = time.monotonic()
            status, answer = ask(connection, bodies[number])
            assert status == 200, answer
            taken.append(time.monotonic() - start)
            orders[number] = first_ten(answer)

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    ask(connection, bodies[0])
    start = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()
    rate = len(taken) / (time.monotonic() - start)
    return {"rate": rate, "median": statistics.median(taken), "orders": orders}


def side_by_side(options: argparse.Namespace, bodies: list[bytes]) -> None:
    systems = [TUNERANK, OTHER]
    if not INFINITY.exists():
        print(f"{INFINITY} is not there (make interop): {TUNERANK} alone", file=sys.stderr)
        systems = [TUNERANK]
    found: dict[str, list[dict]] = {system: [] for system in systems}
    for turn in range(options.turns):
        for system in systems:
            with served(system, options.model, options.precision, []) as (port, _):
                found[system].append(load_closed(port, bodies, options.clients, options.seconds))
            print(f"turn {turn + 1}: {system} {found[system][-1]['rate']:.2f}/s", file=sys.stderr)
    print("| server | requests/s, median | each turn | ratio | seconds, median | same first 10 |")
    print("|---|---|---|---|---|---|")
    base = statistics.median(one["rate"] for one in found[systems[-1]])
    for system, turns in found.items():
        rates = [one["rate"] for one in turns]
        middle = statistics.median(rates)
        seconds = statistics.median(one["median"] for one in turns)
        mine, other = turns[0]["orders"], found[systems[-1]][0]["orders"]
        both = mine.keys() & other.keys()
        same = statistics.fmean(mine[number] == other[number] for number in both)
        each = ", ".join(f"{rate:.2f}" for rate in rates)
        print(
            f"| {system} | {middle:.2f} | {each} | {middle / base:.2f} | {seconds:.2f} | "
            f"{same:.3f} of {len(both)} |"
        )


def cut_off(port: int, body: bytes, rng: random.Random) -> str:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"POST /rerank HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        data = head.encode() + body
        # Some go before the body is complete, some while they wait for the answer.
        connection.sendall(data[: rng.randrange(len(data) + 200)])
        time.sleep(rng.random())
    return "cut off"


def resident(process: subprocess.Popen) -> float:
    """Return the megabytes of memory that a process has."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def overload(options: argparse.Namespace, bodies: list[bytes]) -> None:
    counts: Counter[str] = Counter()
    with (
        served(TUNERANK, options.model, options.precision, []) as (port, process),
        ThreadPoolExecutor(400) as pool,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        right = [scores_of(ask(connection, body)[1]) for body in bodies[:40]]
        rate = load_closed(port, bodies[:40], options.clients, 30)["rate"]
        print(f"capacity {rate:.2f} requests/s; now {2 * rate:.2f}", flush=True)

        def one(number: int, kind: float) -> str:
            body, rng = bodies[number], random.Random(number)
            if kind < 0.01:
                return cut_off(port, body, rng)
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
                if kind < 0.02:
                    status, _ = ask(connection, body[: -rng.randrange(1, len(body))])
                    return "malformed, 400" if status == 400 else f"WRONG: malformed, {status}"
                status, answer = ask(connection, body)
                connection.close()
            except OSError as error:
                return f"WRONG: {type(error).__name__}"
            if status == 429:
                return "429"
            if status != 200:
                return f"WRONG: {status}"
            scores = scores_of(answer)
            same = scores.keys() == right[number].keys() and all(
                abs(scores[index] - right[number][index]) < options.tolerance for index in scores
            )
            return "right" if same else "WRONG: other scores"

        lock = threading.Lock()

        def count(done) -> None:
            with lock:
                counts[done.result()] += 1

        start, sent, shown, memory = time.monotonic(), 0, 0.0, []
        rng = random.Random(0)
        while (now := time.monotonic() - start) < 60 * options.minutes:
            while sent < now * 2 * rate:
                done = pool.submit(one, rng.randrange(len(right)), rng.random())
                done.add_done_callback(count)
                sent += 1
            if now >= shown:
                memory.append(resident(process))
                print(f"{now:4.0f} s: {memory[-1]:.0f} MB, {dict(counts)}", flush=True)
                shown += 30
            time.sleep(0.02)
    print(f"{sent} requests: {dict(counts)}")
    later = memory[len(memory) // 5 :]
    print(f"resident memory after a fifth of the time: {min(later):.0f} to {max(later):.0f} MB")
    if any(name.startswith("WRONG") for name in counts):
        sys.exit("some answers were wrong")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(ROOT / "models/reranker"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--passages", type=int, default=24)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--minutes", type=float)
    parser.add_argument(
        "--tolerance", type=float, default=0.02, help="of a score, in another batch; fp32: 0.0001"
    )
    options = parser.parse_args()
    bodies = [json.dumps(one).encode() for one in requests(options.passages)]
    if options.minutes:
        overload(options, bodies)
    else:
        side_by_side(options, bodies)


if __name__ == "__main__":
    main()
