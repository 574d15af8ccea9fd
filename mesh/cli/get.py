"""`mesh get`: objects as the server's tables, or as JSON or YAML."""

from pathlib import Path

import click
import orjson

from mesh.api.resources import Json, Resource, ResourceIndex
from mesh.cli.connection import home_option, with_client
from mesh.cli.errors import CommandError
from mesh.cli.manifest_checks import discover
from mesh.cli.output import output_option, print_json, print_table, print_yaml
from mesh.client.rest import ApiClient

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@click.command("get")
@click.argument("kind")
@click.argument("name", required=False)
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-A", "--all-namespaces", is_flag=True)
@click.option("-l", "--selector", default="", help="Label selector.")
@output_option("wide", "yaml")
@home_option
def get_command(
    kind: str, name: str | None, namespace: str, all_namespaces: bool, selector: str, output: str, home: Path
) -> None:
    """Show objects of KIND (pods, svc, deployments.apps, ...), or the one called NAME."""

    async def work(client: ApiClient) -> None:
        resource = await _resource(client, kind)
        where = None if all_namespaces or not resource.is_namespaced else namespace
        path = resource.object_path(name, namespace) if name else resource.collection_path(where)
        query = {"labelSelector": selector} if selector else {}
        is_table = output in ("table", "wide")
        answer = orjson.loads(await client.raw("GET", path, query=query, accept=_TABLE if is_table else ""))
        if is_table:
            _print(
                answer, is_wide=output == "wide", shows_namespace=where is None and resource.is_namespaced and not name
            )
        elif output == "json":
            print_json(answer)
        else:
            print_yaml(answer)

    with_client(home, work)


async def _resource(client: ApiClient, word: str) -> Resource:
    known = ResourceIndex.of().find(word)
    if known is not None:
        return known
    listed = orjson.loads(await client.raw("GET", "/apis"))
    for group in listed.get("groups", ()):
        index = ResourceIndex.of(tuple(await discover(client, group["name"])))
        found = index.find(word)
        if found is not None:
            return found
    raise CommandError(f"the server has no kind called {word!r}: `kubectl api-resources` lists what there is")


def _print(table: Json, *, is_wide: bool, shows_namespace: bool) -> None:
    shown = [i for i, c in enumerate(table["columnDefinitions"]) if is_wide or not c.get("priority")]
    columns = [str(table["columnDefinitions"][i]["name"]).upper() for i in shown]
    rows = []
    for row in table.get("rows") or []:
        cells = [row["cells"][i] for i in shown]
        if shows_namespace:
            cells.insert(0, row["object"]["metadata"].get("namespace", ""))
        rows.append(cells)
    if not rows:
        click.echo("No resources found.", err=True)
        return
    print_table([*(["NAMESPACE"] if shows_namespace else []), *columns], rows)
