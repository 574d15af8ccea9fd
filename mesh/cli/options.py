"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def files_option(function: F) -> F:
    """`-f FILE`, repeatable and needed at least once, handed over as `files`."""
    about = "File, folder, or - for standard input. Repeatable."
    decorated: F = click.option("-f", "--filename", "files", multiple=True, required=True, help=about)(function)
    return decorated
