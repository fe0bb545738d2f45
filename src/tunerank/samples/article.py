"""Build the article's samples: the negatives are the texts of all other questions.

A question with several relevant passages has all their texts as positives, and its explicit
negatives come before the other questions' texts. In a table where each question has one relevant
passage, another question's text about the same passage is a negative, as in the article. As soon as
a question has several, a passage that is relevant to a question is never its negative.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from tunerank.data.questions import grades
from tunerank.params.load import Params
from tunerank.samples.negatives import Sides, all_negatives
from tunerank.samples.texts import Corpus, Group, negative_text, paired_text, training_group


class Article:
    """The texts of all training questions; a row is a question and one of its relevant passages.

    Every group shows all texts in the unit of its own question.

    Args:
        questions, held_out, about, several: as in `build`.
    """

    def __init__(
        self,
        params: Params,
        corpus: Corpus,
        questions: Iterable[tuple[dict, Sequence[dict]]],
        held_out: Set[str],
        about: Mapping[str, Sequence[dict]],
        several: bool,
    ):
        self.params, self.corpus, self.several = params, corpus, several
        self.held_out, self.about = held_out, about
        self.groups: list[Group] = []
        self.rows: list[tuple[Group, dict]] = []
        self.own: list[range] = []
        for question, candidates in questions:
            # The windows of its other candidates are not needed, and all questions are in memory.
            needed = {*grades(question), *question["negatives"]}
            found = [candidate for candidate in candidates if candidate["passage"] in needed]
            group = training_group(params, corpus, question, found)
            start = len(self.rows)
            self.rows += [(group, item) for item in question["relevant"]]
            self.groups.append(group)
            self.own.append(range(start, len(self.rows)))

    def text(self, asked: int, row: int) -> str:
        """Return the text of a row's passage as the group of the question `asked` shows it."""
        group, item = self.rows[row]
        passage, unit = item["passage"], self.groups[asked].unit
        near = group.nearest[passage]
        return paired_text(item, self.params.samples.pair, self.corpus[passage], near, unit)

    def sides(self, asked: int) -> Sides:
        """Return what the samples of the question `asked` are made of."""
        group = self.groups[asked]
        explicit = (
            negative_text(self.params, self.corpus, self.about, group, passage)
            for passage in dict.fromkeys(group.question["negatives"])
            if passage not in self.held_out
        )
        weights = [float(item["grade"]) for item in group.question["relevant"]]
        return Sides(
            own=self.own[asked],
            explicit=[text for text in explicit if text is not None],
            others=self.others(group),
            weights=weights if self.several else None,
        )

    def others(self, group: Group) -> Iterator[int]:
        """Yield the rows of other questions, without passages that answer this one too."""
        for row, (other, item) in enumerate(self.rows):
            if other.question["question"] == group.question["question"]:
                continue
            if self.several and group.answers(self.corpus[item["passage"]]):
                continue
            yield row


def article_samples(
    params: Params,
    corpus: Corpus,
    questions: Iterable[tuple[dict, Sequence[dict]]],
    held_out: Set[str],
    about: Mapping[str, Sequence[dict]],
    several: bool,
) -> Iterator[dict]:
    """Yield the article's samples of all training questions; the arguments are those of `build`."""
    article = Article(params, corpus, questions, held_out, about, several)
    yield from all_negatives(
        [group.question["question"] for group in article.groups],
        article.text,
        params.samples.neg_batch_size,
        params.samples.n_neg_batch,
        article.sides,
    )
