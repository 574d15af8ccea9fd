"""The contract between an exchange and the filters of its route."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


class RequestFilter(Protocol):
    """One concern of a route, shared by all its requests; what belongs to one request is kept in `exchange.notes`.

    Order is Envoy's: `on_request` from the first filter to the last, `on_response` the other way round.
    """

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        """Before an endpoint is picked. True: go on.

        False: the filter has answered (`exchange.reply_with`, `reply_direct`), or holds the request and will call `exchange.go_on()`.
        """
        ...

    def on_response(self, exchange: "Exchange", status: int, lines: list[bytes]) -> list[bytes]:
        """The header lines to send with a response, also with one of the proxy's own. Framing lines are not among them."""
        ...

    def on_end(self, exchange: "Exchange", now: float) -> None:
        """The request is over, however it ended; called once for every filter whose `on_request` was called."""
        ...


class QuietFilter:
    """A filter that lets everything pass; filters derive from it and say what they do."""

    __slots__ = ()

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        return True

    def on_response(self, exchange: "Exchange", status: int, lines: list[bytes]) -> list[bytes]:
        return lines

    def on_end(self, exchange: "Exchange", now: float) -> None:
        return


class PerBranch(QuietFilter):
    """Filters of one kind whose settings differ between the branches of a split."""

    __slots__ = ("_filters",)

    def __init__(self, filters: Sequence[RequestFilter | None]) -> None:
        self._filters = tuple(filters)

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        one = self._filters[exchange.branch.index]
        return one is None or one.on_request(exchange, now)

    def on_response(self, exchange: "Exchange", status: int, lines: list[bytes]) -> list[bytes]:
        one = self._filters[exchange.branch.index]
        return lines if one is None else one.on_response(exchange, status, lines)

    def on_end(self, exchange: "Exchange", now: float) -> None:
        one = self._filters[exchange.branch.index]
        if one is not None:
            one.on_end(exchange, now)


Filters = Sequence[RequestFilter]
