"""What clients ask, checked: every message names a field, and none repeats the client's text."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)

from tunerank.data.passages import Passage
from tunerank.serving.limits import Limits, Refused


def readable(value: object) -> object:
    """Return a text with U+FFFD in place of each half of a character; other values as they are.

    Clients that cut texts by UTF-16 units send such halves, which UTF-8 cannot write.

    >>> readable("a\\ud83d"), readable(7)
    ('a\\ufffd', 7)
    """
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def document(value: object) -> Passage:
    """Return a document, a string or {"text": string, "title": string}.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str):
        return Passage("", readable(value))
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        title = value.get("title")
        if title is None or isinstance(title, str):
            return Passage(readable(title or ""), readable(value["text"]))
    raise ValueError('give a string, or an object with a string "text"')


OBJECT = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}, "title": {"type": "string"}},
}
Text = Annotated[str, BeforeValidator(readable)]
Name = Annotated[str, Field(max_length=1000), BeforeValidator(readable)]
Document = Annotated[
    Passage, PlainValidator(document), WithJsonSchema({"anyOf": [{"type": "string"}, OBJECT]})
]


class Asked(BaseModel):
    """What all protocols ask. `whole` is this server's own: whole passages, or Ranker's views."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    query: Text
    model: str | None = None
    whole: bool | None = None


class Texts(Asked):
    """text-embeddings-inference's request. Texts are cut whatever `truncate` says."""

    texts: list[Document]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] = "Right"

    @property
    def given(self) -> list[Passage]:
        return self.texts


class Documents(Asked):
    """The request of the others. 0 stands for no limit, as in vLLM."""

    documents: list[Document]
    top_n: int | None = Field(None, ge=0)
    return_documents: bool | None = None
    raw_scores: bool = False
    max_tokens_per_doc: int | None = Field(None, ge=0)
    rank_fields: list[Literal["text", "title"]] | None = None

    @property
    def given(self) -> list[Passage]:
        return self.documents


class SearchFor(BaseModel):
    """A search over the corpus. The server lists the systems in /info.

    `candidates`: pairs (id of a passage, score) of your own search, if the run is on top of one.
    """

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    query: Text
    top_k: int = Field(5, ge=1, le=100)
    system: str = "fused"
    candidates: list[tuple[Name, FiniteFloat]] | None = None


def checked(kind: type[BaseModel], body: Mapping, limits: Limits, invalid: int = 400) -> Any:
    """Return a request as an object of `kind`, within the limits.

    Raises:
        Refused: a field is missing or wrong, or something is too long; the line names it.
    """
    # Before the values are checked: an error for each of a million would take long.
    for name in ("documents", "texts", "candidates"):
        if isinstance(body.get(name), list) and len(body[name]) > limits.texts:
            most = f"at most {limits.texts} are scored in a request"
            raise Refused(413, f"{name}: {len(body[name])}; {most}")
    try:
        asked = kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise Refused(invalid, f"{place.removeprefix('.')}: {reason}") from None
    if not asked.query.strip():
        raise Refused(invalid, "query: empty")
    given = getattr(asked, "given", None)
    if given == []:
        raise Refused(invalid, f"{'texts' if isinstance(asked, Texts) else 'documents'}: empty")
    longest = limits.query if isinstance(asked, SearchFor) else limits.characters
    if len(asked.query) > longest:
        raise Refused(413, f"query: {len(asked.query)} characters; at most {longest}")
    for i, one in enumerate(given or ()):
        length = len(one.title) + len(one.text)
        if length > limits.characters:
            raise Refused(413, f"document {i}: {length} characters; at most {limits.characters}")
    return asked
