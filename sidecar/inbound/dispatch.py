"""From a connection's original destination to the chain for that port of this pod. Pure."""

from sidecar.chains import ChainChoice, choose_chain
from sidecar.config import Listener


def choose(accepted_by: Listener, destination: tuple[str, int]) -> ChainChoice | None:
    """The chain for a connection that was meant for `destination`, an address of this pod."""
    return choose_chain(accepted_by, destination[1])
