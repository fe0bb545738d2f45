"""Arguments that begin with a hyphen, and commands that need further packages."""

import contextlib
import re
from collections.abc import Iterator

import typer
from typer.core import TyperCommand

from tunerank.core.errors import InputError

UsageError = typer.BadParameter.__bases__[0]


class QueryCommand(TyperCommand):
    """Accept a query that begins with a hyphen, such as `-5度能用吗`, as an argument.

    A word that looks like an option has to be one; `--` ends the options.
    """

    def parse_args(self, ctx, args):
        names = {"--help", *(name for param in self.params for name in param.opts)}
        options = args[: args.index("--")] if "--" in args else args
        for argument in options:
            name = argument.partition("=")[0]
            if re.fullmatch("--?[A-Za-z][A-Za-z0-9-]*", name) and name not in names:
                raise UsageError(f"no such option: {name}; -- ends the options", ctx=ctx)
        return super().parse_args(ctx, args)


@contextlib.contextmanager
def needs(extras: str) -> Iterator[None]:
    """Import the work of a command, which may need packages that ranking does not.

    Raises:
        InputError: one is missing, and what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name.startswith("tunerank"):
            raise
        raise InputError(
            f"{error.name} is not installed: pip install 'tunerank[{extras}]'"
        ) from None
