"""Leases: their deadlines and keys. Pure; times are the caller's monotonic seconds.

Grants are stored, so that keys with a lease still expire after a restart; renewals never touch the log (k3s issue 10619: leases bloat
the log). As in etcd, a restart gives every lease its full time again.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from controlplane.store.errors import LeaseNotFoundError
from controlplane.store.protocol import NO_LEASE, LeaseId


@dataclass(slots=True, eq=False)
class Lease:
    """One lease. `keys` may hold keys that have moved on; the holder checks them when it ends."""

    lease: LeaseId
    ttl_s: float
    deadline: float
    keys: set[bytes] = field(default_factory=set)


class Leases:
    """All leases of one store."""

    def __init__(self) -> None:
        self._leases: dict[LeaseId, Lease] = {}
        self._deadlines: list[tuple[float, LeaseId]] = []
        """A heap; an entry whose lease was renewed or ended is put right when it surfaces."""

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._leases

    def grant(self, lease: LeaseId, ttl_s: float, now: float) -> Lease:
        """Start a lease."""
        granted = Lease(lease, ttl_s, now + ttl_s)
        self._leases[lease] = granted
        heapq.heappush(self._deadlines, (granted.deadline, lease))
        return granted

    def keep_alive(self, lease: LeaseId, now: float) -> float:
        """Restart its time; returns its TTL."""
        kept = self.require(lease)
        kept.deadline = now + kept.ttl_s
        return kept.ttl_s

    def require(self, lease: LeaseId) -> Lease:
        """The lease, or LeaseNotFoundError."""
        found = self._leases.get(lease)
        if found is None:
            raise LeaseNotFoundError(f"lease {lease} has expired, was revoked or never existed: grant a new one")
        return found

    def attach(self, lease: LeaseId, key: bytes) -> None:
        """`key` goes when `lease` ends."""
        if lease != NO_LEASE and lease in self._leases:
            self._leases[lease].keys.add(key)

    def detach(self, lease: LeaseId, keys: Iterable[bytes]) -> None:
        """`keys` belong to another lease now, or to none."""
        if lease in self._leases:
            self._leases[lease].keys.difference_update(keys)

    def end(self, lease: LeaseId) -> Lease:
        """Take the lease out. Raises LeaseNotFoundError."""
        ended = self.require(lease)
        del self._leases[lease]
        return ended

    def restore(self, lease: Lease, deadline: float) -> None:
        """Its end could not be stored: it stays until `deadline`."""
        lease.deadline = deadline
        self._leases[lease.lease] = lease
        heapq.heappush(self._deadlines, (deadline, lease.lease))

    def next_deadline(self) -> float | None:
        """When `expired` should be asked next."""
        self._settle()
        return self._deadlines[0][0] if self._deadlines else None

    def expired(self, now: float) -> list[LeaseId]:
        """Leases whose time is over."""
        over: list[LeaseId] = []
        self._settle()
        while self._deadlines and self._deadlines[0][0] <= now:
            over.append(heapq.heappop(self._deadlines)[1])
            self._settle()
        return over

    def _settle(self) -> None:
        """Bring the true next deadline to the top."""
        heap = self._deadlines
        while heap:
            deadline, lease = heap[0]
            held = self._leases.get(lease)
            if held is None:
                heapq.heappop(heap)
            elif held.deadline > deadline:
                heapq.heapreplace(heap, (held.deadline, lease))
            else:
                return
