"""What the HTTP filters do to a route's requests, level by level: branch over route over virtual host over table. Pure."""

import enum
from dataclasses import dataclass, replace

from mesh.routing.cors import CorsPolicy
from mesh.routing.fault import FaultRule
from mesh.routing.rate_limit import LocalRateLimit
from mesh.routing.session import SessionPolicy


class FilterKind(enum.Enum):
    """The HTTP filters before the router, by Envoy's names without `envoy.filters.http.`."""

    CORS = "cors"
    FAULT = "fault"
    LOCAL_RATE_LIMIT = "local_ratelimit"
    ADAPTIVE_CONCURRENCY = "adaptive_concurrency"
    STATEFUL_SESSION = "stateful_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSettings:
    """One level's settings (Envoy's typed_per_filter_config). None: as the level around it.

    They only matter for filters that the listener has, as in Envoy.
    """

    cors: CorsPolicy | None = None
    fault: FaultRule | None = None
    rate_limit: LocalRateLimit | None = None
    session: SessionPolicy | None = None
    disabled: frozenset[FilterKind] = frozenset()
    """Filters that do nothing from here on inwards."""

    def over(self, outer: "FilterSettings") -> "FilterSettings":
        """This level inside `outer`: the innermost setting of a filter wins whole; CORS is joined field by field, as in Envoy."""
        if self is NO_SETTINGS:
            return outer
        if outer is NO_SETTINGS:
            return self
        own = self.configured | self.disabled
        cors = self.cors
        if cors is not None and outer.cors is not None:
            cors = cors.over(outer.cors)
        return replace(
            self,
            cors=cors or outer.cors,
            fault=self.fault or outer.fault,
            rate_limit=self.rate_limit or outer.rate_limit,
            session=self.session or outer.session,
            disabled=self.disabled | (outer.disabled - own),
        )

    @property
    def configured(self) -> frozenset[FilterKind]:
        """The filters that this level has settings for."""
        settings = {
            FilterKind.CORS: self.cors,
            FilterKind.FAULT: self.fault,
            FilterKind.LOCAL_RATE_LIMIT: self.rate_limit,
            FilterKind.STATEFUL_SESSION: self.session,
        }
        return frozenset(kind for kind, value in settings.items() if value is not None)


NO_SETTINGS = FilterSettings()
