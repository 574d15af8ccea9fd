"""Keeping the nft rules of ClusterIPs in step with the Services."""

import asyncio
import logging
import random
from collections.abc import Callable

from mesh.backoff import Backoff
from node.network.config import NetworkConfig
from node.network.errors import RulesError
from node.network.rules import apply_rules
from node.network.service_rules import Target, VirtualPort, changed_rules, full_rules, targets_of
from node.network.services import ServiceKey, ServiceTable

logger = logging.getLogger(__name__)

_GATHER_S = 0.02
_BACKOFF = Backoff(base_s=0.1, cap_s=10.0, jitter=0.5)


class ServiceProxy:
    """One writer of the rules. Changes that come within 20 ms go out in one transaction.

    Rules stay as they are while the process is away; the first write of a new process replaces them in one step.
    `apply` runs nft in the node's namespace, blocking (tests give another).
    """

    def __init__(self, config: NetworkConfig, table: ServiceTable, apply: Callable[[str], None] = apply_rules) -> None:
        self._config = config
        self._table = table
        self._apply = apply
        self._changed = asyncio.Event()
        self._applied: dict[VirtualPort, Target] | None = None
        self._failures = 0
        self._rng = random.Random()
        table.subscribe(self._on_change)

    def _on_change(self, _key: ServiceKey) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Write the rules, then follow the table until cancelled. Start it when the table has synced."""
        self._changed.set()
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_S)
            self._changed.clear()
            await self._write()

    async def _write(self) -> None:
        wanted = targets_of(self._table.all(), dns_address=self._config.dns_address)
        text = self._full(wanted) if self._applied is None else changed_rules(self._applied, wanted)
        if not text:
            return
        try:
            await asyncio.to_thread(self._apply, text)
        except RulesError as error:
            await self._after_failure(error)
            return
        self._applied = wanted
        self._failures = 0

    def _full(self, wanted: dict[VirtualPort, Target]) -> str:
        config = self._config
        return full_rules(
            wanted, service_cidr=config.service_cidr, dns_address=config.dns_address, pod_cidr=config.pod_cidr
        )

    async def _after_failure(self, error: RulesError) -> None:
        # Something else may have touched the table: begin anew, with the whole of it.
        self._applied = None
        self._failures += 1
        logger.error("service rules not applied", extra={"reason": str(error), "failures": self._failures})
        await asyncio.sleep(_BACKOFF.delay_s(self._failures, self._rng))
        self._changed.set()
