"""Rank passages by a server with a /rerank endpoint; docs/ranking.md has how to start one.

    python examples/rank_http.py http://127.0.0.1:7997 "电池保修几年？" passages.txt

`tunerank serve`, Infinity, vLLM and the services of Jina, Cohere and others take this request. In
text-embeddings-inference the passages are named "texts".

A line of passages.txt is a whole passage, after its title (title。text), as in the row "reranker,
whole" of metrics/table.md.
"""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

address, query, path = sys.argv[1:]
passages = Path(path).read_text(encoding="utf-8").splitlines()
with urlopen(f"{address}/models") as answer:
    model = json.load(answer)["data"][0]["id"]
body = {"model": model, "query": query, "documents": passages, "top_n": len(passages)}
request = Request(
    f"{address}/rerank", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
with urlopen(request) as answer:
    results = json.load(answer)["results"]
for found in sorted(results, key=lambda result: -result["relevance_score"]):
    print(f"{found['relevance_score']:.6f}\t{passages[found['index']]}")
