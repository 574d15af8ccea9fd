"""What every part of the server that answers requests works with."""

import random
from dataclasses import dataclass, field

from controlplane.apiserver.authentication import Authenticator
from controlplane.apiserver.authorization import Authorizer
from controlplane.apiserver.backends import Backends
from controlplane.apiserver.config import ApiServerConfig
from controlplane.apiserver.crds import CustomKinds
from controlplane.apiserver.documents import Documents
from controlplane.apiserver.kinds import KindRegistry
from controlplane.apiserver.pod_index import PodIndex
from controlplane.apiserver.rules import Rules
from controlplane.apiserver.storage import ObjectStorage
from controlplane.apiserver.watching import FrameCache, WatchStream
from controlplane.apiserver.writer import ObjectWriter
from controlplane.store.protocol import Store
from mesh.clock import Clock
from mesh.identity.tokens import TokenAuthority


@dataclass(slots=True, kw_only=True)
class Core:
    """Built once by the server."""

    config: ApiServerConfig
    store: Store
    kinds: KindRegistry
    custom_kinds: CustomKinds
    storage: ObjectStorage
    rules: Rules
    documents: Documents
    writer: ObjectWriter
    tokens: TokenAuthority
    authenticator: Authenticator
    authorizer: Authorizer
    pods: PodIndex
    backends: Backends
    clock: Clock
    rng: random.Random
    frames: FrameCache = field(default_factory=FrameCache)
    watches: set[WatchStream] = field(default_factory=set)
    """Those open now."""
    is_ready: bool = False
    is_closing: bool = False
