"""Rerank the lines of a file by a server, with a client that people use.

    python clients.py CLIENT http://127.0.0.1:8080 KEY QUERY passages.txt

It prints score, tab and passage, best first. It runs in an environment without this project.
"""

import sys
from pathlib import Path

client, address, key, query, path = sys.argv[1:]
passages = Path(path).read_text(encoding="utf-8").splitlines()
count = len(passages)


def cohere_v2():
    import cohere

    found = cohere.ClientV2(key, base_url=address).rerank(
        model="served", query=query, documents=passages, top_n=count
    )
    return [(one.relevance_score, passages[one.index]) for one in found.results]


def cohere_v1():
    import cohere

    found = cohere.Client(key, base_url=address).rerank(
        model="served",
        query=query,
        documents=[{"text": text} for text in passages],
        top_n=count,
        return_documents=True,
    )
    return [(one.relevance_score, one.document.text) for one in found.results]


def cohere_without_key():
    """The server's line must reach whoever reads the client's error."""
    import cohere

    try:
        cohere.ClientV2("another key", base_url=address).rerank(
            model="served", query=query, documents=passages
        )
    except cohere.errors.UnauthorizedError as error:
        return [(0.0, error.body["message"])]


def httpx_tei():
    import httpx

    found = httpx.post(
        f"{address}/rerank",
        json={"query": query, "texts": passages, "return_text": True},
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
    ).json()
    return [(one["score"], one["text"]) for one in found]


def langchain(compressor):
    from langchain_core.documents import Document

    found = compressor.compress_documents([Document(text) for text in passages], query)
    return [(one.metadata["relevance_score"], one.page_content) for one in found]


def langchain_cohere():
    from langchain_cohere import CohereRerank

    return langchain(
        CohereRerank(model="served", cohere_api_key=key, base_url=address, top_n=count)
    )


def langchain_jina():
    from langchain_community.document_compressors import jina_rerank

    jina_rerank.JINA_API_URL = f"{address}/v1/rerank"  # the class has no parameter for it
    return langchain(jina_rerank.JinaRerank(model="served", jina_api_key=key, top_n=count))


def langchain_infinity():
    from infinity_client.client import AuthenticatedClient
    from langchain_community.document_compressors import InfinityRerank

    asked = AuthenticatedClient(base_url=address, token=key, timeout=60)
    return langchain(InfinityRerank.model_construct(client=asked, model="served", top_n=count))


def llamaindex(postprocessor):
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in passages]
    found = postprocessor.postprocess_nodes(nodes, query_str=query)
    return [(one.score, one.node.text) for one in found]


def llamaindex_cohere():
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return llamaindex(CohereRerank(count, "served", key, address))


def llamaindex_jina():
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return llamaindex(JinaRerank(count, "served", f"{address}/v1", key))


def llamaindex_tei():
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return llamaindex(TextEmbeddingInference(count, address, auth_token=f"Bearer {key}"))


for score, text in globals()[client]():
    print(f"{score:.6f}\t{text}")
