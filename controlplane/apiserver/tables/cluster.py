"""The columns of nodes, namespaces, configuration, events, leases and definitions."""

from controlplane.apiserver.tables.columns import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Cell,
    Column,
    at,
    field,
    listed,
    name,
    since,
    wide,
)
from mesh.api.resources import Json

_ROLE_LABEL = "node-role.kubernetes.io/"


def _node_status(node: Json, _now_s: float) -> Cell:
    conditions = at(node, "status", "conditions") or ()
    ready = (c.get("status") == "True" for c in conditions if c.get("type") == "Ready")
    words = ["Ready" if is_ready else "NotReady" for is_ready in ready]
    if not words:
        words.append("Unknown")
    if at(node, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(node: Json, _now_s: float) -> Cell:
    labels = node["metadata"].get("labels") or {}
    return listed(sorted(label.removeprefix(_ROLE_LABEL) for label in labels if label.startswith(_ROLE_LABEL)))


def _address(type_: str) -> Column:
    def cell(node: Json, _now_s: float) -> Cell:
        addresses = at(node, "status", "addresses") or ()
        return next((str(one.get("address")) for one in addresses if one.get("type") == type_), NONE)

    return wide({"InternalIP": "Internal-IP", "ExternalIP": "External-IP"}[type_], cell)


NODES_COLUMNS = (
    NAME,
    Column("Status", _node_status),
    Column("Roles", _roles),
    AGE,
    Column("Version", field("status", "nodeInfo", "kubeletVersion", default="")),
    _address("InternalIP"),
    _address("ExternalIP"),
    wide("OS-Image", field("status", "nodeInfo", "osImage", default=UNKNOWN)),
    wide("Kernel-Version", field("status", "nodeInfo", "kernelVersion", default=UNKNOWN)),
    wide("Container-Runtime", field("status", "nodeInfo", "containerRuntimeVersion", default=UNKNOWN)),
)
NAMESPACES_COLUMNS = (NAME, Column("Status", field("status", "phase", default="")), AGE)


def _config_size(obj: Json, _now_s: float) -> Cell:
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


def _secrets(obj: Json, _now_s: float) -> Cell:
    return len(obj.get("secrets") or ())


CONFIG_MAPS_COLUMNS = (NAME, Column("Data", _config_size, "integer"), AGE)
SECRETS_COLUMNS = (NAME, Column("Type", field("type", default="Opaque")), Column("Data", _config_size, "integer"), AGE)
SERVICE_ACCOUNTS_COLUMNS = (NAME, Column("Secrets", _secrets, "integer"), AGE)


def _last_seen(event: Json, now_s: float) -> Cell:
    metadata = event["metadata"]
    series = at(event, "series", "lastObservedTime")
    last = series or event.get("lastTimestamp") or event.get("eventTime") or metadata.get("creationTimestamp")
    return since(last, now_s)


def _first_seen(event: Json, now_s: float) -> Cell:
    return since(
        event.get("firstTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"), now_s
    )


def _involved(event: Json, _now_s: float) -> Cell:
    about = event.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _source(event: Json, _now_s: float) -> Cell:
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    return listed([component, source.get("host", "")]).replace(",", ", ")


def _message(event: Json, _now_s: float) -> Cell:
    return str(event.get("message", "")).strip()


EVENTS_COLUMNS = (
    Column("Last Seen", _last_seen),
    Column("Type", field("type", default="")),
    Column("Reason", field("reason", default="")),
    Column("Object", _involved),
    wide("Subobject", field("involvedObject", "fieldPath", default="")),
    wide("Source", _source),
    Column("Message", _message),
    wide("First Seen", _first_seen),
    wide("Count", field("count", default=1), "string"),
    Column("Name", name, format="name", priority=1),
)
LEASES_COLUMNS = (NAME, Column("Holder", field("spec", "holderIdentity", default="")), AGE)


def _created(obj: Json, _now_s: float) -> Cell:
    return str(obj["metadata"].get("creationTimestamp", ""))


CUSTOM_RESOURCE_DEFINITIONS_COLUMNS = (NAME, Column("Created At", _created, "date"))


def _matched(image: Json, _now_s: float) -> Cell:
    wanted = at(image, "spec", "match")
    return listed(wanted) if isinstance(wanted, list) else str(wanted or NONE)


def _command(image: Json, _now_s: float) -> Cell:
    words = [*(at(image, "spec", "command") or ()), *(at(image, "spec", "args") or ())]
    return " ".join(map(str, words)) or NONE


HOST_IMAGES_COLUMNS = (NAME, Column("Match", _matched), Column("Command", _command), AGE)


def _items(*path: str) -> Column:
    def cell(obj: Json, _now_s: float) -> Cell:
        items = at(obj, *path) or ()
        quoted = ",".join(f'"{item}"' for item in items)
        return f"[{quoted}]" if items else ""

    return Column(path[-1].capitalize(), cell)


def _condition(type_: str) -> Column:
    def cell(obj: Json, _now_s: float) -> Cell:
        conditions = at(obj, "status", "conditions") or ()
        return next((str(c.get("status")) for c in conditions if c.get("type") == type_), "")

    return Column(type_, cell)


VIRTUAL_SERVICES_COLUMNS = (
    NAME,
    _items("spec", "gateways"),
    _items("spec", "hosts"),
    _condition("Programmed"),
    AGE,
)
DESTINATION_RULES_COLUMNS = (NAME, Column("Host", field("spec", "host", default="")), _condition("Programmed"), AGE)

TRAFFIC_LIMITS_COLUMNS = (
    NAME,
    Column("Port", field("spec", "port", default="")),
    Column("Rate", field("spec", "localRateLimit", "maxTokens", default="")),
    _condition("Programmed"),
    AGE,
)


def _parents(obj: Json, _now_s: float) -> Cell:
    return listed(str(ref.get("name")) for ref in at(obj, "spec", "parentRefs") or ())


def _parent_condition(type_: str) -> Column:
    """True when it is true for every parent."""

    def cell(obj: Json, _now_s: float) -> Cell:
        parents = at(obj, "status", "parents") or ()
        found = [c.get("status") for p in parents for c in p.get("conditions") or () if c.get("type") == type_]
        return next((str(status) for status in found if status != "True"), "True" if found else "")

    return Column(type_, cell)


HTTP_ROUTES_COLUMNS = (
    NAME,
    _items("spec", "hostnames"),
    Column("Parents", _parents),
    _parent_condition("Programmed"),
    AGE,
)
