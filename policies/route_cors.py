"""The CORS policy of a route."""

from collections.abc import Sequence

from mesh.api.networking import CorsPolicy
from policies.checks import Findings
from policies.headers import is_token
from policies.route_match import compile_string
from policies.values import Cors


def compile_cors(path: str, policy: CorsPolicy | None, findings: Findings) -> Cors | None:
    """None when there is none."""
    if policy is None:
        return None
    if not policy.allow_origins:
        findings.required(f"{path}.allowOrigins", 'without an origin nothing is allowed: give one, such as exact: "*"')
    origins = [compile_string(f"{path}.allowOrigins[{i}]", o, findings) for i, o in enumerate(policy.allow_origins)]
    for index, origin in enumerate(origins):
        if origin is None:
            findings.required(f"{path}.allowOrigins[{index}]", "give one of exact, prefix or regex")
    for field, names in (
        ("allowMethods", policy.allow_methods),
        ("allowHeaders", policy.allow_headers),
        ("exposeHeaders", policy.expose_headers),
    ):
        check_tokens(f"{path}.{field}", names, findings)
    age = findings.duration(f"{path}.maxAge", policy.max_age, zero=True)
    return Cors(
        origins=tuple(origin for origin in origins if origin is not None),
        methods=policy.allow_methods,
        headers=policy.allow_headers,
        exposes=policy.expose_headers,
        max_age_s=None if age is None else int(age),
        allows_credentials=policy.allow_credentials,
        forwards_unmatched=policy.unmatched_preflights != "IGNORE",
    )


def check_tokens(path: str, names: Sequence[str], findings: Findings) -> None:
    """Names of headers or methods, or `*`."""
    for index, name in enumerate(names):
        if not is_token(name):
            findings.invalid(f"{path}[{index}]", f'"{name}" is no name of a header or method')
