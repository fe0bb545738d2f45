"""Rank passages by LangChain's CrossEncoderReranker, which gives an order and no scores.

    pip install langchain-classic langchain-community sentence-transformers
    python examples/rank_langchain.py models/reranker "电池保修几年？" passages.txt

Behind a retriever, use ContextualCompressionRetriever of langchain_classic.retrievers with
base_compressor=reranker and base_retriever=retriever, and call .invoke(query).

A line of passages.txt is a whole passage, after its title (title。text), as in the row "reranker,
whole" of metrics/table.md.
"""

import sys
from pathlib import Path

from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_community.cross_encoders import HuggingFaceCrossEncoder
from langchain_core.documents import Document

folder, query, path = sys.argv[1:]
documents = [Document(passage) for passage in Path(path).read_text(encoding="utf-8").splitlines()]
reranker = CrossEncoderReranker(
    model=HuggingFaceCrossEncoder(model_name=folder), top_n=len(documents)
)
for document in reranker.compress_documents(documents, query):
    print(document.page_content)
