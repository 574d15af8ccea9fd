"""Which filter chain of a listener takes a connection."""

from dataclasses import dataclass

from sidecar.config import FilterChain, Listener
from sidecar.plane import chain_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainChoice:
    """The chain for a connection, or for each way its first bytes may turn out."""

    listener: Listener
    if_http: tuple[str, FilterChain] | None
    """For HTTP/1 as detected; None: no detection, `otherwise` takes it. The text is the chain's key."""
    otherwise: tuple[str, FilterChain] | None
    """None: what is not HTTP is refused."""


def choose_chain(listener: Listener, port: int) -> ChainChoice | None:
    """The chains of `listener` for a connection to `port`; None if it has none: the connection is closed."""
    keyed = [(chain_key(chain.name, index), chain) for index, chain in enumerate(listener.chains)]
    matching = [entry for entry in keyed if entry[1].destination_port == port]
    matching += [entry for entry in keyed if entry[1].destination_port is None]
    if not matching:
        return None
    detected = next((entry for entry in matching if entry[1].detected_http), None)
    otherwise = next((entry for entry in matching if not entry[1].detected_http), None)
    if (
        detected is not None
        and otherwise is not None
        and detected[1].destination_port != otherwise[1].destination_port == port
    ):
        detected = None  # a chain for exactly this port wins over detection for any port
    return ChainChoice(listener=listener, if_http=detected, otherwise=otherwise)
