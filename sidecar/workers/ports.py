"""Port 0 in several processes: the port is chosen once and every worker binds the same."""

import socket
from collections.abc import Mapping

from sidecar.config import Snapshot
from sidecar.server import bind, bind_key


class PortReservations:
    """Sockets that are bound and never listen, so that a port stays ours when all its workers are gone."""

    def __init__(self) -> None:
        self._held: dict[str, socket.socket] = {}

    def ports_of(self, snapshot: Snapshot) -> Mapping[str, int]:
        """The port of each listener that asks for any, by `bind_key`. Raises ListenError.

        A port is kept until the end, also when its listener goes: it may come back.
        """
        wanted = {bind_key(one): one for one in snapshot.listeners if one.bind and one.port == 0}
        for key, listener in wanted.items():
            if key not in self._held:
                self._held[key] = bind(listener, 0, shared=True)
        return {key: int(self._held[key].getsockname()[1]) for key in wanted}

    def close(self) -> None:
        """Let every port go."""
        for sock in self._held.values():
            sock.close()
        self._held.clear()
