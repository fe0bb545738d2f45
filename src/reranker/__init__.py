"""Fine-tune a cross-encoder reranker on your own questions and passages: the library behind the stages of dvc.yaml."""
