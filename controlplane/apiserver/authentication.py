"""Who is asking: a client certificate of our CA, or a service account token."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.apiserver import errors
from controlplane.apiserver.kinds import KindRegistry
from controlplane.apiserver.objects import object_key, parse
from controlplane.store.protocol import Store
from mesh.api.resources import PODS, SERVICE_ACCOUNTS, Json
from mesh.clock import Clock
from mesh.identity.errors import TokenError
from mesh.identity.tokens import TokenAuthority, TokenClaims

AUTHENTICATED = "system:authenticated"
TOKEN_AUDIENCE = "meshwork"
CACHE_S = 10.0
"""A token whose service account or pod is gone stays good for at most this long."""
CACHE_ENTRIES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An authenticated user."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> Json:
        """UserInfo of authentication.k8s.io."""
        info: Json = {"username": self.user, "groups": list(self.groups)}
        if self.uid:
            info["uid"] = self.uid
        if self.extra:
            info["extra"] = {name: list(values) for name, values in self.extra.items()}
        return info


def from_certificate(peer: Mapping[str, Any]) -> Identity | None:
    """The user of a verified client certificate (ssl's dictionary form): CN is the name, each O a group."""
    user, groups = "", []
    for part in peer.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                user = value
            elif key == "organizationName":
                groups.append(value)
    if not user:
        return None
    return Identity(user=user, groups=(*groups, AUTHENTICATED))


class Authenticator:
    """Turns a connection and a header into an identity; checks tokens against the store, with a short cache."""

    def __init__(self, tokens: TokenAuthority, store: Store, kinds: KindRegistry, clock: Clock) -> None:
        self._tokens = tokens
        self._store = store
        self._kinds = kinds
        self._clock = clock
        self._cache: dict[str, tuple[float, Identity]] = {}

    async def authenticate(self, transport: asyncio.BaseTransport | None, authorization: str) -> Identity:
        """The caller's identity. Raises ApiStatusError (401) for nobody or for bad credentials."""
        if authorization:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise errors.unauthorized("Unauthorized: the Authorization header is not a bearer token")
            return await self._from_token(token.strip())
        peer = transport.get_extra_info("peercert") if transport is not None else None
        identity = from_certificate(peer) if peer else None
        if identity is None:
            raise errors.unauthorized("Unauthorized: show a client certificate or a bearer token")
        return identity

    async def _from_token(self, token: str) -> Identity:
        now = self._clock.now()
        if (found := self._cache.get(token)) is not None and now < found[0]:
            return found[1]
        try:
            identity, claims = await self.review(token, (TOKEN_AUDIENCE, self._tokens.issuer))
        except TokenError as exc:
            raise errors.unauthorized(f"Unauthorized: {exc}") from exc
        if len(self._cache) >= CACHE_ENTRIES:
            self._cache.clear()
        good_for_s = min(CACHE_S, claims.expires_at_s - self._clock.wall())
        self._cache[token] = (now + good_for_s, identity)
        return identity

    async def review(self, token: str, audiences: tuple[str, ...]) -> tuple[Identity, TokenClaims]:
        """The identity of a token that is good now, for one of `audiences`. Raises TokenError."""
        claims = self._tokens.verify(token, now_s=self._clock.wall(), audiences=audiences)
        account = await self._metadata(SERVICE_ACCOUNTS.plural, claims.namespace, claims.service_account)
        if account is None or account.get("uid") != claims.service_account_uid:
            raise TokenError(f"service account {claims.namespace}/{claims.service_account} is gone")
        if claims.bound is not None and claims.bound.kind == "Pod":
            pod = await self._metadata(PODS.plural, claims.namespace, claims.bound.name)
            if pod is None or pod.get("uid") != claims.bound.uid:
                raise TokenError(f"pod {claims.namespace}/{claims.bound.name}, which the token is bound to, is gone")
        return _identity(claims), claims

    async def _metadata(self, plural: str, namespace: str, name: str) -> Json | None:
        kind = self._kinds.find("", "v1", plural)
        assert kind is not None, f"core kind {plural} is always served"
        kv = await self._store.get(object_key(kind.resource, namespace, name))
        if kv is None:
            return None
        metadata: Json = parse(kind.resource, kv)["metadata"]
        return metadata


def _identity(claims: TokenClaims) -> Identity:
    extra: dict[str, tuple[str, ...]] = {}
    if claims.bound is not None and claims.bound.kind == "Pod":
        extra["authentication.kubernetes.io/pod-name"] = (claims.bound.name,)
        extra["authentication.kubernetes.io/pod-uid"] = (claims.bound.uid,)
    if claims.node_name:
        extra["authentication.kubernetes.io/node-name"] = (claims.node_name,)
    return Identity(
        user=claims.subject,
        uid=claims.service_account_uid,
        groups=(
            "system:serviceaccounts",
            f"system:serviceaccounts:{claims.namespace}",
            AUTHENTICATED,
        ),
        extra=extra,
    )
