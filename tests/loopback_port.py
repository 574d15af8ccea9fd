"""Ports of the loopback interface, for tests that must name one before anybody listens on it."""

import socket


def free_port() -> int:
    """A port that was free a moment ago: for somebody to listen on, or to be refused at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
