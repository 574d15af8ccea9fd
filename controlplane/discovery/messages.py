"""Small protobuf messages that every builder needs."""

from typing import Any

from envoy.config.core.v3 import address_pb2, config_source_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import duration_pb2, wrappers_pb2


def duration(seconds: float) -> Any:
    """google.protobuf.Duration, rounded to microseconds."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return duration_pb2.Duration(seconds=whole, nanos=micros * 1000)


def uint32(value: int) -> Any:
    """google.protobuf.UInt32Value."""
    return wrappers_pb2.UInt32Value(value=value)


def fractional_percent(percent: float) -> Any:
    """type.v3.FractionalPercent, in steps of a ten-thousandth of a percent."""
    return percent_pb2.FractionalPercent(
        numerator=round(percent * 10_000), denominator=percent_pb2.FractionalPercent.MILLION
    )


def ads_source() -> Any:
    """core.v3.ConfigSource: the stream the resource came by."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )


def socket_address(address: str, port: int) -> Any:
    """core.v3.Address."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=address, port_value=port))
