"""Options that several commands share."""

from collections.abc import Callable

import click

Command = Callable[..., None]


def files_option(function: Command) -> Command:
    """`-f FILE`, repeatable and needed at least once, handed over as `files`."""
    about = "File, folder, or - for standard input. Repeatable."
    decorated: Command = click.option("-f", "--filename", "files", multiple=True, required=True, help=about)(function)
    return decorated
