"""Rank passages by LlamaIndex: FlagEmbeddingReranker, or SentenceTransformerRerank.

The latter with --sentence-transformers as the last argument.

    pip install llama-index-postprocessor-flag-embedding-reranker FlagEmbedding
    pip install llama-index-postprocessor-sbert-rerank sentence-transformers
    python examples/rank_llamaindex.py models/reranker "电池保修几年？" passages.txt

Both put a node's metadata before its text. Name metadata that the reranker should not read in
excluded_embed_metadata_keys.

A line of passages.txt is a whole passage, after its title (title。text), as in the row "reranker,
whole" of metrics/table.md.
"""

import sys
from pathlib import Path

from llama_index.core.schema import NodeWithScore, TextNode

if __name__ == "__main__":
    folder, query, path, *other = sys.argv[1:]
    nodes = [
        NodeWithScore(node=TextNode(text=passage))
        for passage in Path(path).read_text(encoding="utf-8").splitlines()
    ]
    if other:
        from llama_index.postprocessor.sbert_rerank import SentenceTransformerRerank

        # Scores are those after a sigmoid.
        reranker = SentenceTransformerRerank(model=folder, top_n=len(nodes))
    else:
        from llama_index.postprocessor.flag_embedding_reranker import FlagEmbeddingReranker

        reranker = FlagEmbeddingReranker(model=folder, top_n=len(nodes))  # raw logits
    for ranked in reranker.postprocess_nodes(nodes, query_str=query):
        print(f"{ranked.score:.6f}\t{ranked.node.text}")
