"""CORS: which pages of other origins may use a route. Values; the sidecar's filter and `mesh.routing.cors_rules` act on them."""

from dataclasses import dataclass

from mesh.routing.match import StringMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsPolicy:
    """Fields that say nothing (empty, None) are taken from the outer level. Source: Envoy filters.http.cors.v3.CorsPolicy."""

    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: str = ""
    """As the header says it: `GET, POST`."""
    allow_headers: str = ""
    expose_headers: str = ""
    max_age: str = ""
    """Seconds, as text."""
    allow_credentials: bool | None = None
    allow_private_network: bool | None = None
    """Answer Access-Control-Request-Private-Network."""
    forwards_unmatched_preflights: bool | None = None
    """Send preflights of other origins on to the upstream (None: yes); otherwise they are answered without permission."""
    share: float = 1.0
    """Of the requests that the policy is applied to, by chance. 0 to 1. Source: filter_enabled."""

    def over(self, outer: "CorsPolicy") -> "CorsPolicy":
        """This policy, with what it leaves open taken from `outer`."""

        def first(inner: bool | None, other: bool | None) -> bool | None:
            return other if inner is None else inner

        return CorsPolicy(
            allow_origins=self.allow_origins or outer.allow_origins,
            allow_methods=self.allow_methods or outer.allow_methods,
            allow_headers=self.allow_headers or outer.allow_headers,
            expose_headers=self.expose_headers or outer.expose_headers,
            max_age=self.max_age or outer.max_age,
            allow_credentials=first(self.allow_credentials, outer.allow_credentials),
            allow_private_network=first(self.allow_private_network, outer.allow_private_network),
            forwards_unmatched_preflights=first(
                self.forwards_unmatched_preflights, outer.forwards_unmatched_preflights
            ),
            share=self.share,
        )
