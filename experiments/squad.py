"""Convert public reading-comprehension sets into a folder that `prepare.raw` takes.

    python experiments/squad.py data/raw/general FILE.json [FILE.json ...]

The files are in SQuAD's json, or in cmrc2018's trial form. Writes corpus.jsonl (uuid, doc) and
qa.jsonl (uuid, question, answer, context: the sentence that holds the answer). If the package
OpenCC is installed, traditional characters become simplified ones.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from tunerank.core.files import replacing, write_jsonl

SENTENCE = re.compile(r"[^。！？!?；;]*[。！？!?；;]?")


def paragraphs(path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each text with its (question, answer) pairs."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                yield (
                    paragraph["context"],
                    [(qa["question"], qa["answers"][0]["text"]) for qa in paragraph["qas"]],
                )
    else:
        for paragraph in content:
            yield (
                paragraph["context_text"],
                [(qa["query_text"], qa["answers"][0]) for qa in paragraph["qas"]],
            )


def evidence(text: str, answer: str) -> str:
    """Return the first sentence that holds the answer, empty if no sentence does."""
    return next((sentence.strip() for sentence in SENTENCE.findall(text) if answer in sentence), "")


def main(folder: str, *files: str) -> None:
    try:
        from opencc import OpenCC

        simplified = OpenCC("t2s").convert
    except ImportError:
        simplified = str
    corpus, questions = {}, []
    for name in files:
        for text, pairs in paragraphs(Path(name)):
            text = simplified(text)
            key = corpus.setdefault(text, f"{Path(name).stem}-{len(corpus):05d}")
            for question, answer in pairs:
                question, answer = simplified(question), simplified(answer)
                questions.append(
                    {
                        "uuid": key,
                        "question": question,
                        "answer": answer,
                        "context": evidence(text, answer),
                    }
                )
    with replacing(folder) as partial:
        write_jsonl(
            partial / "corpus.jsonl", ({"uuid": key, "doc": text} for text, key in corpus.items())
        )
        write_jsonl(partial / "qa.jsonl", questions)
    print(f"{folder}: {len(corpus)} passages, {len(questions)} questions")


if __name__ == "__main__":
    main(*sys.argv[1:])
