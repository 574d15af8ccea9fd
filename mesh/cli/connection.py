"""Where a command finds its cluster, and how it runs against it."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mesh.cli.errors import CommandError
from mesh.errors import MeshError

if TYPE_CHECKING:
    from mesh.client.rest import ApiClient

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def default_home() -> Path:
    """$MESH_HOME, or ~/.mesh."""
    return Path(os.environ.get("MESH_HOME") or Path.home() / ".mesh")


def home_option(function: F) -> F:
    """`--home DIR`, handed to the command as a Path."""
    option = click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        default=default_home,
        help="The cluster's folder. Default: $MESH_HOME, or ~/.mesh.",
    )
    decorated: F = option(function)
    return decorated


def with_client(home: Path, work: "Callable[[ApiClient], Awaitable[T]]") -> T:
    """Run `work` with a client of the cluster in `home`. Errors end the command with their message."""
    # Not at the top: the launcher stays for days and needs neither aiohttp nor uvloop (0.15 s and 15 MB).
    from mesh.client.rest import ApiClient, ClientConfig
    from mesh.net.loop import run

    async def session() -> T:
        kubeconfig = home / "kubeconfig"
        if not kubeconfig.exists():
            raise CommandError(f"there is no cluster in {home} (no kubeconfig): start one with `mesh up --home {home}`")
        async with ApiClient(ClientConfig.from_kubeconfig(kubeconfig)) as client:
            return await work(client)

    try:
        return run(session())
    except CommandError as exc:
        click.echo(f"mesh: {exc}", err=True)
        raise SystemExit(exc.exit_code) from exc
    except TimeoutError as exc:
        click.echo(f"mesh: not done in time: {exc}", err=True)
        raise SystemExit(3) from exc
    except MeshError as exc:
        click.echo(f"mesh: {exc}", err=True)
        raise SystemExit(1) from exc
