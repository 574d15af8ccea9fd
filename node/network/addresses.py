"""Addresses of the node's pods: given out once, kept on disk, not reused until released."""

import contextlib
import ipaddress
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from node.network.errors import AddressesExhaustedError, NetworkError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Allocation:
    """One pod's address and what the network must know to make its namespace again."""

    uid: str
    namespace: str
    name: str
    address: str
    intercept: bool


class AddressBook:
    """uid -> address within one IPv4 range, written to a file after each change.

    Addresses are given in turn, so that one just released is the last to come back: late packets and cached DNS answers
    then meet nobody instead of a stranger. Not safe for use from several threads.
    """

    def __init__(self, pod_cidr: str, path: Path) -> None:
        self._range = ipaddress.IPv4Network(pod_cidr)
        if self._range.num_addresses < 4:
            raise NetworkError(f"pod range {pod_cidr}: too small, want /30 or larger")
        self._path = path
        self._by_uid: dict[str, Allocation] = {}
        self._by_address: dict[str, Allocation] = {}
        self._last = int(self._range.network_address) + 1

    @property
    def gateway(self) -> str:
        """The first address, which the node's bridge carries."""
        return str(self._range.network_address + 1)

    @property
    def prefix_length(self) -> int:
        return self._range.prefixlen

    @property
    def allocations(self) -> Mapping[str, Allocation]:
        """By pod uid. Read-only by agreement."""
        return self._by_uid

    def at(self, address: str) -> Allocation | None:
        """The pod that has `address`."""
        return self._by_address.get(address)

    def load(self) -> None:
        """Read the file. A missing one is empty; a damaged or foreign one is put aside and named in the log."""
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return
        try:
            stored = json.loads(text)
            entries = [Allocation(**entry) for entry in stored["pods"]]
            if any(ipaddress.IPv4Address(e.address) not in self._range for e in entries):
                raise ValueError(f"holds addresses outside {self._range}")
            self._last = int(ipaddress.IPv4Address(stored["last"]))
        except (ValueError, KeyError, TypeError) as error:
            aside = self._path.with_suffix(".damaged")
            self._path.replace(aside)
            logger.warning("address file was not usable", extra={"path": str(aside), "reason": str(error)})
            return
        for entry in entries:
            self._put(entry)

    def allocate(self, uid: str, namespace: str, name: str, *, intercept: bool) -> Allocation:
        """The pod's address: the one it has, or a free one. Raises AddressesExhaustedError."""
        known = self._by_uid.get(uid)
        if known is not None:
            return known
        for candidate in self._candidates():
            if candidate not in self._by_address:
                self._last = int(ipaddress.IPv4Address(candidate))
                allocation = Allocation(uid, namespace, name, candidate, intercept)
                self._put(allocation)
                self._save()
                return allocation
        raise AddressesExhaustedError(
            f"pod {namespace}/{name}: all {len(self._by_uid)} addresses of {self._range} are taken; "
            "delete pods on this node or give it a larger pod_cidr"
        )

    def release(self, uid: str) -> None:
        """Give the address back. Unknown pods are ignored."""
        allocation = self._by_uid.pop(uid, None)
        if allocation is not None:
            del self._by_address[allocation.address]
            self._save()

    def _put(self, allocation: Allocation) -> None:
        self._by_uid[allocation.uid] = allocation
        self._by_address[allocation.address] = allocation

    def _candidates(self) -> Iterator[str]:
        first = int(self._range.network_address) + 2
        size = self._range.num_addresses - 3
        start = self._last + 1 - first
        for step in range(size):
            yield str(ipaddress.IPv4Address(first + (start + step) % size))

    def _save(self) -> None:
        entries = [{field: getattr(a, field) for field in Allocation.__slots__} for a in self._by_uid.values()]
        stored = {"last": str(ipaddress.IPv4Address(self._last)), "pods": entries}
        beside = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(stored))
            os.replace(beside, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise NetworkError(f"address file {self._path}: {error.strerror}") from error
