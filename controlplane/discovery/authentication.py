"""Who may have which stream: the service account token's pod must be the pod that the proxy says it is."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.discovery.errors import ProxyRefusedError, TokenCheckUnavailableError
from controlplane.discovery.facts import ObjectKey
from controlplane.discovery.proxies import ProxyIdentity
from mesh.api.resources import Json, Resource
from mesh.client.errors import ApiError
from mesh.client.rest import ApiClient
from mesh.clock import Clock
from mesh.errors import MeshError

TOKEN_REVIEWS = Resource(
    group="authentication.k8s.io", version="v1", plural="tokenreviews", kind="TokenReview", is_namespaced=False
)
AUDIENCE = "meshwork"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_ACCOUNT_PREFIX = "system:serviceaccount:"
_CACHE_S = 30.0
_CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOwner:
    """Whose token it is."""

    namespace: str
    account: str
    pod: str
    """"" when the token is bound to no pod."""


class TokenChecker:
    """Asks the API server about tokens (TokenReview); good answers are kept for 30 s, under the token's hash."""

    def __init__(self, client: ApiClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[bytes, tuple[float, TokenOwner]] = {}

    async def check(self, authorization: str) -> TokenOwner:
        """The owner of the bearer token. Raises ProxyRefusedError, TokenCheckUnavailableError."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ProxyRefusedError("metadata `authorization: Bearer TOKEN` is missing: send the service account token")
        digest = hashlib.sha256(token.encode()).digest()
        now = self._clock.now()
        known = self._known.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        owner = await self._review(token)
        if len(self._known) >= _CACHE_SIZE:
            self._known.clear()
        self._known[digest] = (now + _CACHE_S, owner)
        return owner

    async def _review(self, token: str) -> TokenOwner:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        try:
            answer = await self._client.create(TOKEN_REVIEWS, review)
        except ApiError as exc:
            raise TokenCheckUnavailableError(f"the API server refused to check the token: {exc}") from exc
        except MeshError as exc:
            raise TokenCheckUnavailableError(f"the API server cannot be asked about the token: {exc}") from exc
        return owner_of(answer.get("status") or {})


def owner_of(status: Json) -> TokenOwner:
    """Read a TokenReview's status. Raises ProxyRefusedError unless it is a service account's."""
    if not status.get("authenticated"):
        raise ProxyRefusedError(f"the token is not valid: {status.get('error') or 'the API server does not know it'}")
    user = status.get("user") or {}
    name = str(user.get("username", ""))
    namespace, _, account = name.removeprefix(_ACCOUNT_PREFIX).partition(":")
    if not name.startswith(_ACCOUNT_PREFIX) or not account:
        raise ProxyRefusedError(f'the token belongs to "{name}": a service account is needed')
    bound = (user.get("extra") or {}).get(_POD_NAME) or [""]
    return TokenOwner(namespace=namespace, account=account, pod=str(bound[0]))


def check_identity(owner: TokenOwner, proxy: ProxyIdentity, pod_exists: Callable[[ObjectKey], bool]) -> None:
    """Raises ProxyRefusedError unless the token's owner may be this proxy.

    A token bound to a pod speaks for that pod only. One that is bound to none (a real Envoy outside the cluster) may not take
    the name of a pod that exists.
    """
    if owner.namespace != proxy.namespace:
        raise ProxyRefusedError(
            f'node id "{proxy.node_id}" is of namespace {proxy.namespace}, the token of {owner.namespace}'
        )
    if owner.pod and owner.pod != proxy.pod:
        raise ProxyRefusedError(f'node id "{proxy.node_id}" is not the pod of the token, {owner.pod}')
    if not owner.pod and pod_exists(proxy.key):
        raise ProxyRefusedError(f'node id "{proxy.node_id}" is a pod, and the token is not bound to it')
