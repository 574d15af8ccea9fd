"""How commands print: tables and colours on a terminal, plain columns otherwise, JSON and YAML when asked."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
import orjson
import yaml

Command = Callable[..., None]


def output_option(*more: str) -> Callable[[Command], Command]:
    """`-o json` and whatever else a command can print."""
    return click.option(
        "-o", "--output", type=click.Choice(["table", "json", *more]), default="table", show_default=True
    )


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


def print_yaml(value: Any) -> None:
    """YAML on standard output, keys in their order."""
    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Rows under upper-case headings: rich on a terminal, kubectl's plain columns in a pipe."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(
            *columns, title=title or None, box=None, header_style="bold cyan", title_justify="left", pad_edge=False
        )
        for row in cells:
            table.add_row(*row)
        Console().print(table)
        return
    if title:
        click.echo(title)
    widths = [max(len(str(line[i])) for line in [list(columns), *cells]) for i in range(len(columns))]
    for line in [list(columns), *cells]:
        click.echo("   ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
