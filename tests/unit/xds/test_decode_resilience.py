"""Decoders of retries, ejection and limits: Envoy's JSON form -> our values, and errors that name the field."""

from typing import Any

import pytest
from envoy.config.cluster.v3 import circuit_breaker_pb2, outlier_detection_pb2
from envoy.config.route.v3 import route_components_pb2
from google.protobuf import json_format

from mesh.resilience.header_condition import HeaderOf
from mesh.resilience.limits import DEFAULT_LIMITS, CircuitLimits
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.retry import RetryOn, RetryPolicy
from mesh.resilience.retry_after import ResetFormat
from mesh.xds.decode_resilience import decode_limits, decode_outlier
from mesh.xds.decode_retry import buffer_limit, decode_retry_policy
from mesh.xds.errors import DecodeError

pytestmark = pytest.mark.unit

Json = dict[str, Any]


def retry(**fields: Any) -> RetryPolicy:
    return decode_retry_policy(json_format.ParseDict(fields, route_components_pb2.RetryPolicy()), "retry")


def outlier(**fields: Any) -> OutlierConfig:
    return decode_outlier(json_format.ParseDict(fields, outlier_detection_pb2.OutlierDetection()), "outlier")


def limits(**fields: Any) -> CircuitLimits:
    return decode_limits(json_format.ParseDict(fields, circuit_breaker_pb2.CircuitBreakers()), "breakers")


def reader(**headers: bytes) -> HeaderOf:
    return {name.replace("_", "-").encode(): value for name, value in headers.items()}.get


def test_outlier_without_fields_is_envoys_default() -> None:
    assert outlier() == OutlierConfig()


def test_every_outlier_field_is_read() -> None:
    found = outlier(
        consecutive_5xx=1,
        enforcing_consecutive_5xx=2,
        consecutive_gateway_failure=3,
        enforcing_consecutive_gateway_failure=4,
        consecutive_local_origin_failure=5,
        enforcing_consecutive_local_origin_failure=6,
        split_external_local_origin_errors=True,
        success_rate_minimum_hosts=7,
        success_rate_request_volume=8,
        success_rate_stdev_factor=1500,
        enforcing_success_rate=9,
        enforcing_local_origin_success_rate=10,
        failure_percentage_threshold=11,
        failure_percentage_minimum_hosts=12,
        failure_percentage_request_volume=13,
        enforcing_failure_percentage=14,
        enforcing_failure_percentage_local_origin=15,
        interval="16s",
        base_ejection_time="17s",
        max_ejection_time="18s",
        max_ejection_time_jitter="19s",
        max_ejection_percent=20,
        successful_active_health_check_uneject_host=False,
        always_eject_one_host=False,
    )
    assert found == OutlierConfig(
        consecutive_5xx=1,
        enforcing_consecutive_5xx=2,
        consecutive_gateway=3,
        enforcing_consecutive_gateway=4,
        consecutive_local_origin=5,
        enforcing_consecutive_local_origin=6,
        split_local_origin=True,
        success_rate_min_hosts=7,
        success_rate_volume=8,
        success_rate_stdev_factor=1.5,
        enforcing_success_rate=9,
        enforcing_local_origin_success_rate=10,
        failure_percentage_threshold=11,
        failure_percentage_min_hosts=12,
        failure_percentage_volume=13,
        enforcing_failure_percentage=14,
        enforcing_local_origin_failure_percentage=15,
        interval_s=16.0,
        base_ejection_s=17.0,
        max_ejection_s=18.0,
        max_ejection_jitter_s=19.0,
        max_ejection_percent=20,
        uneject_on_active_check=False,
        always_eject_one=False,
    )


def test_every_field_of_envoys_outlier_message_is_known() -> None:
    for descriptor in outlier_detection_pb2.OutlierDetection.DESCRIPTOR.fields:
        if descriptor.name == "monitors":
            continue  # extensions: there are none here
        message = outlier_detection_pb2.OutlierDetection()
        if descriptor.message_type is None:
            setattr(message, descriptor.name, True)
        elif descriptor.message_type.name == "Duration":
            getattr(message, descriptor.name).seconds = 400
        else:
            getattr(message, descriptor.name).value = 1
        decode_outlier(message, "outlier")


@pytest.mark.parametrize(
    "fields",
    [{"enforcing_success_rate": 101}, {"max_ejection_percent": 101}, {"interval": "0s"}],
)
def test_outlier_out_of_bounds(fields: Json) -> None:
    with pytest.raises(DecodeError) as caught:
        outlier(**fields)
    assert caught.value.path == "outlier"


def test_limits_are_finite_by_default_and_read_for_the_default_priority() -> None:
    assert limits() == DEFAULT_LIMITS
    found = limits(
        thresholds=[
            {"priority": "HIGH", "max_connections": 1, "max_requests": 1},
            {"max_connections": 2, "max_pending_requests": 3, "max_requests": 4, "track_remaining": True},
        ],
        per_host_thresholds=[{"max_connections": 5}, {"priority": "HIGH", "max_connections": 6}],
    )
    assert (found.max_connections, found.max_pending, found.max_requests) == (2, 3, 4)
    assert found.max_connections_per_host == 5
    assert found.retry_budget == DEFAULT_LIMITS.retry_budget


@pytest.mark.parametrize(
    ("threshold", "active", "wanted"),
    [
        ({"max_retries": 7}, 1000, 7),
        ({"max_retries": 0}, 1000, 0),
        ({"retry_budget": {}}, 100, 20),
        ({"retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 9}}, 10, 9),
        ({"retry_budget": {"budget_percent": {"value": 50}}, "max_retries": 1}, 100, 50),
    ],
)
def test_retries_in_flight(threshold: Json, active: int, wanted: int) -> None:
    assert limits(thresholds=[threshold]).retry_budget.limit(active) == wanted


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"thresholds": [{"max_connection_pools": 3}]}, "breakers.thresholds[0].max_connection_pools"),
        ({"per_host_thresholds": [{"max_requests": 3}]}, "breakers.per_host_thresholds[0].max_requests"),
    ],
)
def test_limits_that_do_not_exist_are_named(fields: Json, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        limits(**fields)
    assert caught.value.path == path


def test_retry_policy_reads_all_it_knows() -> None:
    found = retry(
        retry_on="retriable-headers,unavailable,envoy-ratelimited,503",
        num_retries=4,
        per_try_timeout="1s",
        per_try_idle_timeout="0.5s",
        host_selection_retry_max_attempts=7,
        retriable_headers=[
            {"name": "X-A", "string_match": {"prefix": "re.", "ignore_case": True}},
            {"name": "x-b", "present_match": True},
            {"name": "x-c", "string_match": {"suffix": "$"}},
            {"name": "x-d", "string_match": {"contains": "*"}},
        ],
        retriable_request_headers=[{"name": "x-ok", "string_match": {"exact": "a.b"}, "invert_match": True}],
        rate_limited_retry_back_off={
            "reset_headers": [{"name": "Retry-After"}, {"name": "X-Reset", "format": "UNIX_TIMESTAMP"}],
            "max_interval": "10s",
        },
    )
    assert found.conditions == (
        RetryOn.RETRIABLE_HEADERS
        | RetryOn.GRPC_UNAVAILABLE
        | RetryOn.ENVOY_RATELIMITED
        | RetryOn.RETRIABLE_STATUS_CODES
    )
    assert (found.max_retries, found.per_try_timeout_s, found.per_try_idle_timeout_s) == (4, 1.0, 0.5)
    for headers, wanted in (
        ({"x_a": b"RE.X"}, True),
        ({"x_a": b"reX"}, False),
        ({"x_b": b""}, True),
        ({"x_c": b"a$"}, True),
        ({"x_c": b"$a"}, False),
        ({"x_d": b"a*b"}, True),
        ({"x_d": b"ab"}, False),
    ):
        assert found.wants_response(200, reader(**headers)) is wanted
    assert found.wants_request(reader(x_ok=b"axb"))
    assert not found.wants_request(reader(x_ok=b"a.b"))
    assert found.rate_limited is not None
    assert [(one.name, one.format) for one in found.rate_limited.headers] == [
        ("retry-after", ResetFormat.SECONDS),
        ("x-reset", ResetFormat.UNIX_TIMESTAMP),
    ]
    assert found.rate_limited.max_interval_s == 10.0


def test_hosts_to_omit_come_from_the_predicates() -> None:
    predicate = {
        "name": "envoy.retry_host_predicates.omit_host_metadata",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
            "metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "canary", "a": "b"}}},
        },
    }
    previous = {"name": "envoy.retry_host_predicates.previous_hosts"}
    assert retry(retry_on="5xx", retry_host_predicate=[previous, predicate]).avoid_labels == (
        ("a", "b"),
        ("stage", "canary"),
    )


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"retry_priority": {"name": "envoy.retry_priorities.previous_priorities"}}, "retry.retry_priority"),
        ({"retry_options_predicates": [{"name": "x"}]}, "retry.retry_options_predicates"),
        (
            {"retry_host_predicate": [{"name": "envoy.retry_host_predicates.omit_canary_hosts"}]},
            "retry.retry_host_predicate[0]",
        ),
        ({"retriable_headers": [{"name": "x"}]}, "retry.retriable_headers"),
        ({"retriable_status_codes": [503]}, "retry.retriable_status_codes"),
        ({"rate_limited_retry_back_off": {"max_interval": "1s"}}, "retry"),
        ({"retry_back_off": {"base_interval": "0s"}}, "retry.retry_back_off.base_interval"),
        ({"retry_on": "5xxx"}, "retry"),
    ],
)
def test_what_a_retry_policy_may_not_say_is_named(fields: Json, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        retry(**fields)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"per_request_buffer_limit_bytes": 7}, 7),
        ({"request_body_buffer_limit": 8}, 8),
        ({"per_request_buffer_limit_bytes": 7, "request_body_buffer_limit": 8}, 8),
    ],
)
def test_buffer_limits(fields: Json, wanted: int | None) -> None:
    assert buffer_limit(json_format.ParseDict(fields, route_components_pb2.Route())) == wanted
