"""The sidecar's own ports: admin, metrics, readiness. Who answers is the caller's business."""

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.responder import Handler, port_of, serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the sidecar's own ports listen. Port 0 takes a free one."""

    admin: tuple[str, int] | None = ("127.0.0.1", 15000)
    metrics: tuple[str, int] | None = ("0.0.0.0", 15020)
    ready: tuple[str, int] | None = ("0.0.0.0", 15021)
    drain_timeout_s: float = 5.0
    """At the end, wait this long for requests under way. Seconds, >= 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What each port answers with."""

    admin: Handler
    metrics: Handler
    ready: Handler


class OwnPorts:
    """The ports that are open. `bound` has their numbers by name."""

    def __init__(self) -> None:
        self.bound: dict[str, int] = {}
        self._close: list[Callable[[], None]] = []

    async def open(self, ports: Ports, answers: Answers) -> None:
        """Listen. Raises ListenError; then nothing stays open."""
        try:
            for name, address, handler in (
                ("admin", ports.admin, answers.admin),
                ("metrics", ports.metrics, answers.metrics),
                ("ready", ports.ready, answers.ready),
            ):
                if address is not None:
                    server = await serve(address, handler)
                    self._close.append(server.close)
                    self.bound[name] = port_of(server)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop listening."""
        for close in self._close:
            close()
        self._close.clear()
