"""Reading protobuf messages strictly: what is not understood is an error with the field's path, never skipped in silence.

The generated classes have no type information, so messages are `Any` here and in the decoders; what leaves a decoder is typed.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from mesh.xds.errors import DecodeError

T = TypeVar("T")

METADATA_KEY: Final = "meshwork.dev"
"""Where provenance and workloads stand in `filter_metadata`."""


def only(message: Any, path: str, *known: str) -> None:
    """Raise DecodeError for the first field of `message` that is set and not in `known`."""
    for field, value in message.ListFields():
        # An explicit `false` in a wrapper says nothing that leaving it out doesn't.
        if field.name not in known and getattr(value, "value", None) is not False:
            raise DecodeError(join(path, field.name), "this field is not supported here; remove it")


def join(path: str, name: str) -> str:
    """The path of field `name` of the message at `path`."""
    return f"{path}.{name}" if path else name


def seconds(message: Any, name: str) -> float | None:
    """A google.protobuf.Duration field in seconds; None when it is not set."""
    if not message.HasField(name):
        return None
    value = getattr(message, name)
    return float(value.seconds) + float(value.nanos) / 1e9


def wrapped(message: Any, name: str, default: T) -> T:
    """The value of a wrapper field (google.protobuf.UInt32Value and so on), or `default` when it is not set."""
    if not message.HasField(name):
        return default
    value: T = getattr(message, name).value
    return value


_DENOMINATORS: Final = (100, 10_000, 1_000_000)  # in the order of FractionalPercent.DenominatorType


def share(fraction: Any, path: str) -> float:
    """A type.v3.FractionalPercent as a part of one, 0 to 1."""
    denominator = _DENOMINATORS[fraction.denominator]
    if fraction.numerator > denominator:
        raise DecodeError(join(path, "numerator"), f"is {fraction.numerator} of {denominator}, more than all")
    return float(fraction.numerator) / denominator


def unpack(any_message: Any, path: str, kinds: dict[str, Callable[[], Any]]) -> tuple[str, Any]:
    """The message inside a google.protobuf.Any: (its full name, the message).

    `kinds` maps full names to classes. Raises DecodeError when it is none of them.
    """
    full_name = any_message.type_url.rpartition("/")[2]
    make = kinds.get(full_name)
    if make is None:
        known = ", ".join(sorted(kinds))
        raise DecodeError(path, f'type "{full_name}" is not supported; known here: {known}')
    message = make()
    if not any_message.Unpack(message):
        raise DecodeError(path, f'the bytes are not a valid "{full_name}"')
    return full_name, message


def metadata(message: Any) -> dict[str, Any]:
    """What `metadata.filter_metadata["meshwork.dev"]` says, as plain values; empty when there is none."""
    if METADATA_KEY not in message.metadata.filter_metadata:
        return {}
    return {key: _plain(value) for key, value in message.metadata.filter_metadata[METADATA_KEY].fields.items()}


def _plain(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def socket_address(address: Any, path: str, *, allow_port_zero: bool = False) -> tuple[str, int]:
    """(address, port) of a core.v3.Address."""
    only(address, path, "socket_address")
    if not address.HasField("socket_address"):
        raise DecodeError(path, "want a socket_address")
    path = join(path, "socket_address")
    found = address.socket_address
    only(found, path, "address", "port_value", "protocol", "ipv4_compat")
    if found.protocol != 0:
        raise DecodeError(join(path, "protocol"), "want TCP")
    if not found.address:
        raise DecodeError(join(path, "address"), "is empty; want an IP address")
    if not (0 if allow_port_zero else 1) <= found.port_value < 65536:
        raise DecodeError(join(path, "port_value"), f"is {found.port_value}, want 1 to 65535")
    return str(found.address), int(found.port_value)
