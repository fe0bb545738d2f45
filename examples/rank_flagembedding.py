"""Rank passages by FlagEmbedding's FlagReranker. (Its FlagModel is for embedding models.)

pip install FlagEmbedding
python examples/rank_flagembedding.py models/reranker "电池保修几年？" passages.txt

A line of passages.txt is a whole passage, after its title (title。text), as in the row "reranker,
whole" of metrics/table.md.
"""

import sys
from pathlib import Path

from FlagEmbedding import FlagReranker

if __name__ == "__main__":  # with several GPUs it starts processes that import this file
    folder, query, path = sys.argv[1:]
    passages = Path(path).read_text(encoding="utf-8").splitlines()
    # Scores are raw logits; normalize=True in compute_score applies a sigmoid.
    reranker = FlagReranker(folder, use_fp16=False)
    scores = reranker.compute_score([(query, passage) for passage in passages])
    for score, passage in sorted(zip(scores, passages), reverse=True):
        print(f"{score:.6f}\t{passage}")
