"""Cookies as far as routing needs them: one value out of a Cookie header, and a Set-Cookie line. Source: RFC 6265."""

from collections.abc import Iterable


def cookie_of(header: bytes | None, name: bytes) -> bytes | None:
    """The value of a cookie, without quotes; None when there is none. `header` is what Cookie headers say, joined."""
    if header is None:
        return None
    # More than one Cookie header should not occur in HTTP/1.1; here they were joined with a comma.
    for pair in header.replace(b",", b";").split(b";"):
        key, equals, value = pair.partition(b"=")
        if equals and key.strip(b" \t") == name:
            value = value.strip(b" \t")
            return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value
    return None


def set_cookie_line(
    name: str, value: bytes, *, ttl_s: int, path: str, attributes: Iterable[tuple[str, str]] = ()
) -> bytes:
    """As Envoy writes it: quoted, HttpOnly, with Max-Age unless `ttl_s` is 0 (then it lasts for the client's session)."""
    line = b'set-cookie: %b="%b"' % (name.encode(), value)
    if ttl_s:
        line += b"; Max-Age=%d" % ttl_s
    if path:
        line += b"; Path=" + path.encode()
    for key, text in attributes:
        line += b"; " + (f"{key}={text}" if text else key).encode()
    return line + b"; HttpOnly"
