"""Turn the documents of a request into pairs of tokens, and score pairs of many requests together.

Everything here runs in one thread, the worker's, and `alone` (searching/running.py): a fast
tokenizer must not be shared, because its truncation is set for each call.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from tunerank.data.passages import Passage
from tunerank.models.batching import batch_threads, length_batches, map_batches
from tunerank.models.cross_encoder import pair_ids
from tunerank.ranker import Ranker
from tunerank.searching.running import alone
from tunerank.serving.jobs import Pairs

CHUNK = 500_000
"""Characters that the tokenizer is given at once."""

LONG, MARGIN = 20, 64
"""Characters a token, beyond which a text is long; tokens between those read and the cut."""


class Scorer:
    """The model of a Ranker, behind the tokens and batches of a server."""

    def __init__(self, ranker: Ranker):
        self.ranker, self.encoder = ranker, ranker.encoder
        self.threads = batch_threads(self.encoder.device)
        self.max_length = min(self.encoder.max_length, self.encoder.tokenizer.model_max_length)

    def room(self, longest: int) -> int:
        """Return how many pairs of up to `longest` tokens fill one batch a thread."""
        return self.threads * max(1, self.encoder.batch_tokens // longest)

    def views(self, passages: Sequence[Passage], whole: bool) -> list[tuple[int, str]]:
        """Return (index of its passage, text) of what is read: whole passages, or Ranker's views.

        A passage has one view at least; that of an empty one is empty.
        """
        if whole:
            return [(index, passage.view()) for index, passage in enumerate(passages)]
        return self.ranker.views(passages)

    def count(self, passages: Sequence[Passage], whole: bool) -> int:
        """Return the number of `views`, without making them: of large requests it takes seconds."""
        size = 0 if whole else self.ranker.view_size
        if not size:
            return len(passages)
        stride = max(1, size // 2)
        beyond = (len(passage.text) - size for passage in passages)
        return sum(1 + max(0, -(-more // stride)) for more in beyond)

    def pairs(
        self, query: str, passages: Sequence[Passage], whole: bool, max_tokens: int | None
    ) -> Pairs:
        """Return the pairs of a request, cut to the tokens that the model reads.

        Args:
            max_tokens: of a document; the rest of it is not read.
        """
        with alone(bars=False):
            return self._pairs(query, passages, whole, max_tokens)

    def _pairs(self, query, passages, whole, max_tokens) -> Pairs:
        cut: set[int] = set()
        if max_tokens:
            shorter = [self.first_tokens(passage, max_tokens) for passage in passages]
            cut = {i for i, passage in enumerate(passages) if shorter[i] != passage}
            passages = shorter
        views = self.views(passages, whole)
        places = {
            text: place for place, text in enumerate(dict.fromkeys(text for _, text in views))
        }
        length, tokenizer = self.max_length, self.encoder.tokenizer
        query = self.beginning(query, length)
        read = [self.beginning(text, length) for text in places]
        ids = []
        for texts in chunks(read):
            ids += self.pair_ids(query, texts)
        asked = self.tokens([query])[0]
        shown = min(asked, length * 3 // 4)
        room = length - shown - tokenizer.num_special_tokens_to_add(pair=True)
        full = [place for place, one in enumerate(ids) if len(one) == length]
        counts = self.tokens([read[place] for place in full])
        long = {place for place, count in zip(full, counts) if count > room}
        of = [(index, places[text]) for index, text in views]
        cut |= {index for index, place in of if place in long}
        return Pairs(ids, of, len(cut), asked > shown)

    def pair_ids(self, query: str, texts: Sequence[str]) -> list[list[int]]:
        """Return what `cross_encoder.pair_ids` does for the pairs of one query and texts.

        That reads a query once for each text. A thousand times 100 000 characters, which may be a
        single token, would take a minute.
        """
        tokenizer, length = self.encoder.tokenizer, self.max_length
        if len(query) <= length or not tokenizer.is_fast:
            return pair_ids(tokenizer, [(query, text) for text in texts], length)
        backend, limit = tokenizer.backend_tokenizer, length * 3 // 4
        backend.no_truncation()
        backend.no_padding()
        asked = backend.encode(query, add_special_tokens=False)
        if len(asked) > limit:
            asked = backend.encode(query[: asked.offsets[limit - 1][1]], add_special_tokens=False)
        encoded = backend.encode_batch(list(texts), add_special_tokens=False)
        # What `encode` itself does at last with the tokens of both texts.
        side = tokenizer.truncation_side
        backend.enable_truncation(length, strategy="only_second", direction=side)
        return [backend.post_process(asked, one).ids for one in encoded]

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        counts: list[int] = []
        for some in chunks(texts):
            encoded = self.encoder.tokenizer(some, add_special_tokens=False)
            counts += map(len, encoded["input_ids"])
        return counts

    def beginning(self, text: str, count: int) -> str:
        """Return the beginning of a text, of more than `count` tokens, or all of it.

        A tokenizer takes seconds for a megabyte, of which the model reads less than a hundredth.
        How the text goes on does not change tokens so far before the end.
        """
        size = LONG * count
        while size < len(text) and self.tokens([text[:size]])[0] < count + MARGIN:
            size *= 2
        return text[:size]

    def first_tokens(self, passage: Passage, count: int) -> Passage:
        """Return a passage with the first `count` tokens of its text."""
        encoded = self.encoder.tokenizer(
            self.beginning(passage.text, count),
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        if len(encoded["input_ids"]) <= count:
            return passage
        return Passage(passage.title, passage.text[: encoded["offset_mapping"][count - 1][1]])

    def score(self, ids: Sequence[list[int]], batch: Callable[[int], None]) -> list[float]:
        """Return the logits of pairs, in their order.

        Args:
            ids: tokens of each pair; batch: called with the number of pairs of each batch.
        """
        logits = [0.0] * len(ids)
        lengths = [len(one) for one in ids]
        batches = length_batches(lengths, self.encoder.batch_tokens, self.threads)
        with alone(bars=False):
            results = map_batches(
                lambda one: self.encoder.logits([ids[i] for i in one]), batches, self.threads
            )
            for one, values in zip(batches, results):
                batch(len(one))
                for i, value in zip(one, values):
                    logits[i] = value
        return logits


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of about `CHUNK` characters.

    A tokenizer needs a hundred bytes for each token of all texts that it is given at once.

    >>> CHUNK, [len(some) for some in chunks(["a" * 300_000] * 3)]
    (500000, [2, 1])
    """
    some: list[str] = []
    size = 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= CHUNK:
            yield some
            some, size = [], 0
    if some:
        yield some
