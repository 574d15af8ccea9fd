"""From a connection's original destination to the listener that owns it. Pure."""

from collections.abc import Mapping

from sidecar.chains import ChainChoice, choose_chain
from sidecar.config import Direction, Listener, Snapshot


class OutboundDispatch:
    """The outbound listeners of one snapshot, by address.

    A service's own address and port come first, then the port on any address, then the listener that accepted the connection.
    """

    __slots__ = ("_by_address",)

    def __init__(self, snapshot: Snapshot) -> None:
        self._by_address: Mapping[tuple[str, int], Listener] = {
            (listener.address, listener.port): listener
            for listener in snapshot.listeners
            if not listener.bind and listener.direction is Direction.OUTBOUND
        }

    def choose(self, accepted_by: Listener, destination: tuple[str, int]) -> ChainChoice | None:
        """The chain for a connection that was meant for `destination`."""
        address, port = destination
        wildcard = "::" if ":" in address else "0.0.0.0"
        for key in ((address, port), (wildcard, port)):
            listener = self._by_address.get(key)
            if listener is not None:
                found = choose_chain(listener, port)
                if found is not None:
                    return found
        return choose_chain(accepted_by, port)
