"""`mesh inject`: show what admission would add, or prepare manifests for a cluster without admission."""

import sys
from pathlib import Path

import click
import yaml

from mesh.cli.applying import manifest_files, read_documents
from mesh.cli.errors import CommandError
from mesh.cli.options import files_option
from mesh.cli.output import output_option, print_json
from mesh.errors import MeshError
from policies.injection import inject_manifest


@click.command("inject")
@files_option
@output_option("yaml")
def inject_command(files: tuple[str, ...], output: str) -> None:
    """Print manifests with the sidecar added to every pod and pod template. Other objects are printed unchanged."""
    stdin = sys.stdin.buffer.read() if "-" in files else None
    try:
        documents = read_documents(manifest_files(Path(f) for f in files if f != "-"), stdin)
    except (CommandError, MeshError) as exc:
        raise click.ClickException(str(exc)) from exc
    injected = [inject_manifest(document.obj) for document in documents]
    if output == "json":
        print_json(injected if len(injected) > 1 else injected[0])
    else:
        click.echo(yaml.safe_dump_all(injected, sort_keys=False, allow_unicode=True), nl=False)
