"""What a peer can do wrong in HTTP/1.1."""

from mesh.errors import RemoteError


class HttpSyntaxError(RemoteError):
    """A message that must not be forwarded. Framing is unknown from here on: answer, then close the connection."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        """What to answer when it is a request: 400, 405, 414, 431, 501, 505."""
        self.reason = reason
        """A stable token for metrics and logs, such as `bare-lf`."""
        self.detail = detail
        """One sentence for a person. Holds no bytes of the message."""
