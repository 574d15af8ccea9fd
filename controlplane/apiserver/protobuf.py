"""Bodies that kubectl sends as Kubernetes protobuf, decoded to JSON data. Answers are always JSON.

Only the messages kubectl's own commands build are known (create, auth can-i); a field that is not known is an error that
says to send JSON, never silently lost. Source: protobuf encoding specification; field numbers from Kubernetes' published
generated.proto files.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Union

from controlplane.apiserver import errors
from mesh.api.resources import Json

MAGIC = b"k8s\x00"
MAX_DEPTH = 32


class Scalar(Enum):
    """How a field's bytes become JSON."""

    TEXT = "text"
    BYTES = "bytes"
    INT = "int"
    BOOL = "bool"
    TIME = "time"
    INT_OR_STRING = "int or string"
    SKIP = "skip"
    """Known and of no use in a request (status)."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    type: Union[Scalar, "Message"]
    is_list: bool = False
    is_map: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message: field number -> field."""

    name: str
    fields: Mapping[int, Field]


def _text(name: str) -> Field:
    return Field(name, Scalar.TEXT)


def _int(name: str) -> Field:
    return Field(name, Scalar.INT)


def _bool(name: str) -> Field:
    return Field(name, Scalar.BOOL)


def _texts(name: str) -> Field:
    return Field(name, Scalar.TEXT, is_list=True)


def _map(name: str, type_: Scalar = Scalar.TEXT) -> Field:
    return Field(name, type_, is_map=True)


def _many(name: str, message: Message) -> Field:
    return Field(name, message, is_list=True)


_STATUS = Field("status", Scalar.SKIP)
_META = Message(
    "ObjectMeta",
    {
        1: _text("name"),
        2: _text("generateName"),
        3: _text("namespace"),
        4: _text("selfLink"),
        5: _text("uid"),
        6: _text("resourceVersion"),
        7: _int("generation"),
        8: Field("creationTimestamp", Scalar.TIME),
        10: _int("deletionGracePeriodSeconds"),
        11: _map("labels"),
        12: _map("annotations"),
        14: _texts("finalizers"),
        17: Field("managedFields", Scalar.SKIP),
    },
)
_SELECTOR = Message(
    "LabelSelector",
    {
        1: _map("matchLabels"),
        2: _many(
            "matchExpressions",
            Message("LabelSelectorRequirement", {1: _text("key"), 2: _text("operator"), 3: _texts("values")}),
        ),
    },
)
_NAME_REF = Message("LocalObjectReference", {1: _text("name")})
_ENV = Message("EnvVar", {1: _text("name"), 2: _text("value")})
_PORT = Message(
    "ContainerPort",
    {1: _text("name"), 2: _int("hostPort"), 3: _int("containerPort"), 4: _text("protocol"), 5: _text("hostIP")},
)
_EMPTY = Message("ResourceRequirements", {})
_CONTAINER = Message(
    "Container",
    {
        1: _text("name"),
        2: _text("image"),
        3: _texts("command"),
        4: _texts("args"),
        5: _text("workingDir"),
        6: _many("ports", _PORT),
        7: _many("env", _ENV),
        8: Field("resources", _EMPTY),
        13: _text("terminationMessagePath"),
        14: _text("imagePullPolicy"),
        16: _bool("stdin"),
        17: _bool("stdinOnce"),
        18: _bool("tty"),
        20: _text("terminationMessagePolicy"),
        24: _text("restartPolicy"),
    },
)
_POD_SPEC = Message(
    "PodSpec",
    {
        2: _many("containers", _CONTAINER),
        3: _text("restartPolicy"),
        4: _int("terminationGracePeriodSeconds"),
        6: _text("dnsPolicy"),
        7: _map("nodeSelector"),
        8: _text("serviceAccountName"),
        9: _text("serviceAccount"),
        10: _text("nodeName"),
        11: _bool("hostNetwork"),
        12: _bool("hostPID"),
        13: _bool("hostIPC"),
        14: Field("securityContext", Message("PodSecurityContext", {})),
        15: _many("imagePullSecrets", _NAME_REF),
        16: _text("hostname"),
        17: _text("subdomain"),
        19: _text("schedulerName"),
        20: _many("initContainers", _CONTAINER),
        24: _text("priorityClassName"),
    },
)
_TEMPLATE = Message("PodTemplateSpec", {1: Field("metadata", _META), 2: Field("spec", _POD_SPEC)})
_ROLLING = Message(
    "RollingUpdateDeployment",
    {1: Field("maxUnavailable", Scalar.INT_OR_STRING), 2: Field("maxSurge", Scalar.INT_OR_STRING)},
)
_DEPLOYMENT_SPEC = Message(
    "DeploymentSpec",
    {
        1: _int("replicas"),
        2: Field("selector", _SELECTOR),
        3: Field("template", _TEMPLATE),
        4: Field("strategy", Message("DeploymentStrategy", {1: _text("type"), 2: Field("rollingUpdate", _ROLLING)})),
        5: _int("minReadySeconds"),
        6: _int("revisionHistoryLimit"),
        7: _bool("paused"),
        9: _int("progressDeadlineSeconds"),
    },
)
_SERVICE_SPEC = Message(
    "ServiceSpec",
    {
        1: _many(
            "ports",
            Message(
                "ServicePort",
                {
                    1: _text("name"),
                    2: _text("protocol"),
                    3: _int("port"),
                    4: Field("targetPort", Scalar.INT_OR_STRING),
                    5: _int("nodePort"),
                    6: _text("appProtocol"),
                },
            ),
        ),
        2: _map("selector"),
        3: _text("clusterIP"),
        4: _text("type"),
        5: _texts("externalIPs"),
        7: _text("sessionAffinity"),
        8: _text("loadBalancerIP"),
        9: _texts("loadBalancerSourceRanges"),
        10: _text("externalName"),
        11: _text("externalTrafficPolicy"),
        12: _int("healthCheckNodePort"),
        13: _bool("publishNotReadyAddresses"),
        17: _text("ipFamilyPolicy"),
        18: _texts("clusterIPs"),
        19: _texts("ipFamilies"),
        20: _bool("allocateLoadBalancerNodePorts"),
        21: _text("loadBalancerClass"),
        22: _text("internalTrafficPolicy"),
        23: _text("trafficDistribution"),
    },
)
_BOUND = Message("BoundObjectReference", {1: _text("kind"), 2: _text("apiVersion"), 3: _text("name"), 4: _text("uid")})
_TOKEN_SPEC = Message(
    "TokenRequestSpec", {1: _texts("audiences"), 3: Field("boundObjectRef", _BOUND), 4: _int("expirationSeconds")}
)
_RESOURCE_ATTRIBUTES = Message(
    "ResourceAttributes",
    {
        1: _text("namespace"),
        2: _text("verb"),
        3: _text("group"),
        4: _text("version"),
        5: _text("resource"),
        6: _text("subresource"),
        7: _text("name"),
        8: Field("fieldSelector", Scalar.SKIP),
        9: Field("labelSelector", Scalar.SKIP),
    },
)
_ACCESS_SPEC = Message(
    "SelfSubjectAccessReviewSpec",
    {
        1: Field("resourceAttributes", _RESOURCE_ATTRIBUTES),
        2: Field("nonResourceAttributes", Message("NonResourceAttributes", {1: _text("path"), 2: _text("verb")})),
    },
)


def _kind(name: str, spec: Message | None = None, **more: Field) -> Message:
    fields = {1: Field("metadata", _META), 3: _STATUS}
    if spec is not None:
        fields[2] = Field("spec", spec)
    fields |= {int(number.removeprefix("_")): field for number, field in more.items()}
    return Message(name, fields)


_MESSAGES: Mapping[tuple[str, str], Message] = {
    ("v1", "Namespace"): _kind("Namespace", Message("NamespaceSpec", {1: _texts("finalizers")})),
    ("v1", "ConfigMap"): _kind(
        "ConfigMap", _2=_map("data"), _3=_map("binaryData", Scalar.BYTES), _4=_bool("immutable")
    ),
    ("v1", "Secret"): _kind(
        "Secret", _2=_map("data", Scalar.BYTES), _3=_text("type"), _4=_map("stringData"), _5=_bool("immutable")
    ),
    ("v1", "ServiceAccount"): _kind(
        "ServiceAccount",
        _2=Field("secrets", Scalar.SKIP),
        _3=_many("imagePullSecrets", _NAME_REF),
        _4=_bool("automountServiceAccountToken"),
    ),
    ("v1", "Service"): _kind("Service", _SERVICE_SPEC),
    ("v1", "Pod"): _kind("Pod", _POD_SPEC),
    ("apps/v1", "Deployment"): _kind("Deployment", _DEPLOYMENT_SPEC),
    ("authentication.k8s.io/v1", "TokenRequest"): _kind("TokenRequest", _TOKEN_SPEC),
    ("authentication.k8s.io/v1", "SelfSubjectReview"): _kind("SelfSubjectReview", _2=_STATUS),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): _kind("SelfSubjectAccessReview", _ACCESS_SPEC),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): _kind(
        "SelfSubjectRulesReview", Message("SelfSubjectRulesReviewSpec", {1: _text("namespace")})
    ),
    ("v1", "DeleteOptions"): Message(
        "DeleteOptions",
        {
            1: _int("gracePeriodSeconds"),
            2: Field("preconditions", Message("Preconditions", {1: _text("uid"), 2: _text("resourceVersion")})),
            3: _bool("orphanDependents"),
            4: _text("propagationPolicy"),
            5: _texts("dryRun"),
        },
    ),
}


def decode_protobuf(data: bytes) -> Json:
    """The object in a `k8s` envelope. Raises ApiStatusError (400 when malformed, 415 for a kind not known here)."""
    if not data.startswith(MAGIC):
        raise errors.bad_request("the protobuf body has no k8s envelope")
    api_version = kind = ""
    raw = b""
    for number, value in _fields(data[len(MAGIC) :]):
        if number == 1 and isinstance(value, bytes):
            types = {n: v.decode(errors="replace") for n, v in _fields(value) if isinstance(v, bytes)}
            api_version, kind = types.get(1, ""), types.get(2, "")
        elif number == 2 and isinstance(value, bytes):
            raw = value
    message = _MESSAGES.get((api_version, kind)) or _MESSAGES.get(("v1", kind) if kind == "DeleteOptions" else ("", ""))
    if message is None:
        raise errors.unsupported_media_type(f"protobuf {api_version} {kind}", ("application/json",))
    return {"apiVersion": api_version, "kind": kind, **_decode(message, raw, 0)}


def _decode(message: Message, data: bytes, depth: int) -> Json:
    if depth > MAX_DEPTH:
        raise errors.bad_request("the protobuf body is nested too deeply")
    result: Json = {}
    for number, value in _fields(data):
        field = message.fields.get(number)
        if field is None:
            raise errors.bad_request(
                f"protobuf field {number} of {message.name} is not supported by this server; send the object as JSON"
            )
        if field.type is Scalar.SKIP:
            continue
        if field.is_map:
            key, item = _entry(field, value, depth)
            result.setdefault(field.name, {})[key] = item
        elif field.is_list:
            result.setdefault(field.name, []).append(_value(field.type, value, depth))
        else:
            result[field.name] = _value(field.type, value, depth)
    return {name: value for name, value in result.items() if value not in ("", None)}


def _entry(field: Field, value: int | bytes, depth: int) -> tuple[str, object]:
    parts = dict(_fields(_as_bytes(value)))
    key = _value(Scalar.TEXT, parts.get(1, b""), depth)
    return str(key), _value(field.type, parts.get(2, b""), depth)


def _value(type_: Scalar | Message, value: int | bytes, depth: int) -> object:
    if isinstance(type_, Message):
        return _decode(type_, _as_bytes(value), depth + 1)
    match type_:
        case Scalar.INT | Scalar.BOOL:
            if not isinstance(value, int):
                raise errors.bad_request("the protobuf body has a text where a number belongs")
            return bool(value) if type_ is Scalar.BOOL else _signed(value)
        case Scalar.BYTES:
            return base64.b64encode(_as_bytes(value)).decode()
        case Scalar.TIME:
            seconds = dict(_fields(_as_bytes(value))).get(1)
            return _time(seconds) if isinstance(seconds, int) and seconds else None
        case Scalar.INT_OR_STRING:
            parts = dict(_fields(_as_bytes(value)))
            if parts.get(1, 0) == 0:
                number = parts.get(2, 0)
                return _signed(number) if isinstance(number, int) else 0
            return _utf8(_as_bytes(parts.get(3, b"")))
        case _:
            return _utf8(_as_bytes(value))


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(_signed(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError) as exc:
        raise errors.bad_request("the protobuf body has an impossible time") from exc


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise errors.bad_request("the protobuf body has a text that is not UTF-8") from exc


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise errors.bad_request("the protobuf body has a number where a text or message belongs")
    return value


def _signed(value: int) -> int:
    """Two's complement of 64 bits: int32 and int64 are sign-extended on the wire."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field on the wire; numbers as unsigned ints, everything with a length as bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire_type == 2:
            length, position = _varint(data, position)
            if length > len(data) - position:
                raise errors.bad_request("the protobuf body is cut off")
            yield number, data[position : position + length]
            position += length
        else:
            raise errors.bad_request(
                f"the protobuf body has a field of wire type {wire_type}, which no known message has"
            )


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise errors.bad_request("the protobuf body is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise errors.bad_request("the protobuf body has a number of more than 64 bits")
