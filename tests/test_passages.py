import json

from tunerank.data.passages import Passage, read_passages


def test_titles_are_read_if_they_are_wanted_and_present(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [{"id": "b", "text": "正文", "title": "手册"}, {"id": "a", "text": "无题"}]
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    found = read_passages(path, titles=True)
    assert list(found.items()) == [("b", Passage("手册", "正文")), ("a", Passage("", "无题"))]
    assert [passage.view() for passage in found.values()] == ["手册。正文", "无题"]
    assert [passage.view() for passage in read_passages(path, titles=False).values()] == [
        "正文",
        "无题",
    ]
