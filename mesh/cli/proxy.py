"""`mesh proxy-status` and `mesh proxy-config`: what each proxy was sent, has acknowledged, and holds."""

from pathlib import Path

import click
import orjson

from mesh.api.resources import Json
from mesh.cli.connection import home_option, with_client
from mesh.cli.errors import CommandError
from mesh.cli.output import output_option, print_json, print_table
from mesh.client.rest import ApiClient

SYNC_PATH = "/api/v1/namespaces/meshwork-system/services/mesh-discovery:15014/proxy/debug/syncz"
TYPES = ("CDS", "EDS", "LDS", "RDS")


@click.command("proxy-status")
@output_option()
@home_option
def proxy_status_command(output: str, home: Path) -> None:
    """List every connected proxy with the state of each configuration type.

    SYNCED: the last push was acknowledged. STALE: not yet. ERROR: it was refused; the reason is below the table.
    """

    async def work(client: ApiClient) -> None:
        proxies = orjson.loads(await client.raw("GET", SYNC_PATH))["proxies"]
        if output == "json":
            print_json({"proxies": proxies})
            return
        rows = [
            [
                f"{p['pod']}.{p['namespace']}",
                *(sync_state(p["types"].get(t)) for t in TYPES),
                p.get("node", ""),
                p.get("version", ""),
            ]
            for p in proxies
        ]
        print_table(["NAME", *TYPES, "NODE", "VERSION"], sorted(rows))
        for proxy in proxies:
            for type_, state in proxy["types"].items():
                if state.get("error"):
                    click.echo(f"{proxy['pod']}.{proxy['namespace']} refused {type_}: {state['error']}", err=True)

    with_client(home, work)


def sync_state(state: Json | None) -> str:
    """One word for what is known of one type at one proxy."""
    if not state or not state.get("sent"):
        return "NOT SENT"
    if state.get("error"):
        return "ERROR"
    return "SYNCED" if state["sent"] == state.get("acked") else "STALE"


@click.command("proxy-config")
@click.argument("name")
@click.argument("part", type=click.Choice(["all", "clusters", "listeners", "routes", "endpoints"]), default="all")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option(
    "--type", "proxy_type", type=click.Choice(["meshwork", "envoy"]), default="envoy", help="With NAME `bootstrap`."
)
@output_option()
@home_option
def proxy_config_command(name: str, part: str, namespace: str, proxy_type: str, output: str, home: Path) -> None:
    """Show what the sidecar of pod NAME (or NAME.NAMESPACE) holds now, read from its admin interface.

    NAME `bootstrap` with `--type envoy` prints a bootstrap file with which a real Envoy joins this mesh.
    """

    async def work(client: ApiClient) -> None:
        if name == "bootstrap":
            await _print_bootstrap(client, home, namespace)
            return
        pod, _, where = name.partition(".")
        dump = await read_config_dump(client, where or namespace, pod)
        if output == "json":
            print_json(dump if part == "all" else dump.get(part))
            return
        for section in ("listeners", "routes", "clusters", "endpoints") if part == "all" else (part,):
            _print_section(section, dump.get(section) or [])

    with_client(home, work)


async def read_config_dump(client: ApiClient, namespace: str, pod: str) -> Json:
    """The sidecar's own account of its snapshot."""
    raw = await client.raw("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}:15000/proxy/config_dump")
    dump: Json = orjson.loads(raw)
    return dump


def _print_section(title: str, items: list[Json]) -> None:
    if not items:
        return
    columns = list(
        dict.fromkeys(key for item in items for key, value in item.items() if not isinstance(value, dict | list))
    )
    rows = [[item.get(column, "") for column in columns] for item in items]
    print_table([column.upper() for column in columns], rows, title=f"\n{title}")


async def _print_bootstrap(client: ApiClient, home: Path, namespace: str) -> None:
    """An Envoy bootstrap file for a workload outside any pod, with a token of the namespace's default account."""
    from mesh.api.resources import SERVICE_ACCOUNTS
    from mesh.xds.envoy_bootstrap import EnvoyIdentity, render_envoy_bootstrap

    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["meshwork"], "expirationSeconds": 86400},
    }
    answer = await client.create(SERVICE_ACCOUNTS, body, namespace, subresource="token", name="default")
    ca = home / "pki" / "ca.crt"
    if not ca.exists():
        raise CommandError(f"{ca} is missing: `mesh up --home {home}` makes it")
    identity = EnvoyIdentity(namespace=namespace, token=answer["status"]["token"], ca_pem=ca.read_text())
    click.echo(render_envoy_bootstrap(identity), nl=False)
