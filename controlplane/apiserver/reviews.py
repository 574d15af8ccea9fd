"""Kinds that are answered at once and never stored: token and access reviews, token requests."""

from collections.abc import Mapping
from typing import Any

from controlplane.apiserver import errors
from controlplane.apiserver.authentication import TOKEN_AUDIENCE, Identity
from controlplane.apiserver.authorization import NODE_USER_PREFIX, NODES_GROUP, Attributes
from controlplane.apiserver.core import Core
from controlplane.apiserver.home import CONTROL_PLANE_USER, MASTERS
from controlplane.apiserver.strategy import timestamp
from mesh.api.resources import PODS, SERVICE_ACCOUNTS, Json
from mesh.identity.errors import TokenError
from mesh.identity.tokens import BoundObject, TokenClaims

DEFAULT_TOKEN_S = 3600
MIN_TOKEN_S = 600
MAX_TOKEN_S = 24 * 3600
"""A longer expirationSeconds is shortened to this. Source: the shape of kube-apiserver's token lifetime limits."""


async def answer_review(core: Core, plural: str, obj: Json, identity: Identity) -> Json:
    """The review with its status. Raises ApiStatusError."""
    spec = obj.get("spec") or {}
    if not isinstance(spec, dict):
        raise errors.bad_request("spec is not an object")
    answer = {**obj, "metadata": {"creationTimestamp": None}}
    match plural:
        case "tokenreviews":
            answer["status"] = await _token_review(core, spec)
        case "selfsubjectreviews":
            answer["status"] = {"userInfo": identity.to_json()}
        case "selfsubjectaccessreviews":
            answer["status"] = _access_review(core, spec, identity)
        case _:
            answer["status"] = _rules_review(identity)
    return answer


async def _token_review(core: Core, spec: Json) -> Json:
    token, audiences = spec.get("token"), spec.get("audiences") or (TOKEN_AUDIENCE, core.tokens.issuer)
    if not isinstance(token, str) or not token:
        raise errors.bad_request("spec.token is missing")
    try:
        identity, claims = await core.authenticator.review(token, tuple(map(str, audiences)))
    except TokenError as exc:
        return {"authenticated": False, "error": str(exc)}
    meant_for = [one for one in claims.audiences if one in audiences]
    return {"authenticated": True, "user": identity.to_json(), "audiences": meant_for}


def _access_review(core: Core, spec: Json, identity: Identity) -> Json:
    asked: Mapping[str, Any] = spec.get("resourceAttributes") or {}
    path: Mapping[str, Any] = spec.get("nonResourceAttributes") or {}
    if asked:
        attributes = Attributes(
            verb=str(asked.get("verb", "")),
            group=str(asked.get("group", "")),
            resource=str(asked.get("resource", "")),
            subresource=str(asked.get("subresource", "")),
            namespace=str(asked.get("namespace", "")),
            name=str(asked.get("name", "")),
        )
    elif path:
        attributes = Attributes(verb=str(path.get("verb", "")), path=str(path.get("path", "")) or "/")
    else:
        raise errors.bad_request("spec.resourceAttributes or spec.nonResourceAttributes is needed")
    decision = core.authorizer.authorize(identity, attributes)
    return {"allowed": decision.is_allowed, "reason": decision.reason}


def _rules_review(identity: Identity) -> Json:
    if MASTERS in identity.groups or CONTROL_PLANE_USER in identity.groups:
        return {
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": False,
        }
    return {
        "resourceRules": [
            {
                "verbs": ["create"],
                "apiGroups": ["authorization.k8s.io"],
                "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            },
            {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
        ],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
        "incomplete": NODES_GROUP in identity.groups,
    }


async def issue_token(core: Core, namespace: str, name: str, obj: Json, identity: Identity) -> Json:
    """TokenRequest: a token of a service account, bound to a pod if it is asked for. Raises ApiStatusError."""
    account = await core.storage.lookup(SERVICE_ACCOUNTS, namespace, name)
    if account is None:
        raise errors.not_found(SERVICE_ACCOUNTS, name)
    spec = obj.get("spec") or {}
    bound, node_name = await _bound_object(core, namespace, name, spec.get("boundObjectRef"), identity)
    now_s = int(core.clock.wall())
    expires_s = now_s + _lifetime(spec.get("expirationSeconds"), name)
    audiences = spec.get("audiences") or [TOKEN_AUDIENCE]
    if not isinstance(audiences, list) or not all(isinstance(one, str) and one for one in audiences):
        raise errors.invalid(SERVICE_ACCOUNTS, name, [errors.cause("spec.audiences", "Invalid value: must be texts")])
    token = core.tokens.issue(
        TokenClaims(
            namespace=namespace,
            service_account=name,
            service_account_uid=account["metadata"]["uid"],
            audiences=tuple(audiences),
            issued_at_s=now_s,
            expires_at_s=expires_s,
            bound=bound,
            node_name=node_name,
        )
    )
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": timestamp(now_s)},
        "spec": {**spec, "audiences": audiences, "expirationSeconds": expires_s - now_s},
        "status": {"token": token, "expirationTimestamp": timestamp(expires_s)},
    }


def _lifetime(asked: object, name: str) -> int:
    if asked is None:
        return DEFAULT_TOKEN_S
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < MIN_TOKEN_S:
        wrong = errors.cause("spec.expirationSeconds", f"Invalid value: {asked!r}: may not be less than 10 minutes")
        raise errors.invalid(SERVICE_ACCOUNTS, name, [wrong])
    return min(asked, MAX_TOKEN_S)


async def _bound_object(
    core: Core, namespace: str, account: str, ref: Any, identity: Identity
) -> tuple[BoundObject | None, str]:
    """The object a token is bound to, and its node. A node gets tokens of its own pods only."""
    is_node = NODES_GROUP in identity.groups
    if not ref:
        if is_node:
            raise errors.refused(SERVICE_ACCOUNTS, account, "a node requests tokens that are bound to one of its pods")
        return None, ""
    if not isinstance(ref, dict) or ref.get("kind") != "Pod" or not ref.get("name"):
        raise errors.bad_request("spec.boundObjectRef must name a Pod")
    pod = await core.storage.lookup(PODS, namespace, str(ref["name"]))
    if pod is None:
        raise errors.not_found(PODS, str(ref["name"]))
    uid, spec = pod["metadata"]["uid"], pod.get("spec") or {}
    if ref.get("uid") not in (None, "", uid):
        raise errors.conflict(
            PODS, ref["name"], f"the UID in the bound object reference ({ref['uid']}) does not match {uid}"
        )
    if (spec.get("serviceAccountName") or "default") != account:
        raise errors.refused(SERVICE_ACCOUNTS, account, f"pod {ref['name']} runs as another service account")
    node = str(spec.get("nodeName") or "")
    if is_node and node != identity.user.removeprefix(NODE_USER_PREFIX):
        raise errors.refused(SERVICE_ACCOUNTS, account, f"pod {ref['name']} is not on this node")
    return BoundObject(kind="Pod", name=str(ref["name"]), uid=uid), node
