"""sessionPersistence of an HTTPRoute's rule."""

from mesh.api.gateway import SessionPersistence
from policies.checks import Findings
from policies.headers import check_header_name
from policies.values import Session


def compile_session(
    path: str, persistence: SessionPersistence | None, default_name: str, findings: Findings
) -> Session | None:
    """None when there is none."""
    if persistence is None:
        return None
    name = persistence.session_name or default_name
    check_header_name(f"{path}.sessionName", name, findings)  # cookies' names are tokens as well
    absolute = findings.duration(f"{path}.absoluteTimeout", persistence.absolute_timeout)
    if persistence.idle_timeout:
        message = "is not supported: the endpoint is in the cookie, and nothing counts its use"
        findings.unsupported(f"{path}.idleTimeout", message)
    is_permanent = persistence.cookie_config.lifetime_type == "Permanent"
    if persistence.type == "Header":
        if persistence.absolute_timeout or is_permanent:
            findings.unsupported(path, "a header carries no lifetime: remove absoluteTimeout and cookieConfig")
        return Session(name=name, is_header=True)
    if persistence.type != "Cookie":
        findings.unsupported(f"{path}.type", f'"{persistence.type}": use Cookie or Header')
    if is_permanent and not persistence.absolute_timeout:
        findings.required(f"{path}.absoluteTimeout", "say how long a permanent cookie lives")
    elif persistence.absolute_timeout and not is_permanent:
        findings.unsupported(f"{path}.absoluteTimeout", "needs cookieConfig.lifetimeType: Permanent")
    return Session(name=name, ttl_s=absolute)
