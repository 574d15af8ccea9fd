"""Routes in words."""

import pytest

from mesh.resilience.fault import FaultPolicy
from mesh.resilience.rate_limit import TokenBucketConfig
from mesh.routing.cors import CorsPolicy
from mesh.routing.fault import FaultRule
from mesh.routing.filters import FilterKind, FilterSettings
from mesh.routing.hashing import HashPolicy, HashSource
from mesh.routing.match import (
    HeaderMatch,
    MatchKind,
    PathKind,
    PathMatch,
    QueryMatch,
    RangeMatch,
    RouteMatch,
    StringMatch,
)
from mesh.routing.mirror import Mirror
from mesh.routing.rate_limit import LocalRateLimit
from mesh.routing.session import SessionPolicy
from mesh.routing.table import DirectResponse, Forward, Redirect, Route, RouteTable, VirtualHost, WeightedCluster
from sidecar.route_text import action_text, extras_text, match_text

pytestmark = pytest.mark.unit


def test_match_in_words() -> None:
    match = RouteMatch(
        path=PathMatch(kind=PathKind.EXACT, value="/a"),
        headers=(
            HeaderMatch(name="x", match=StringMatch(kind=MatchKind.PREFIX, value="1"), invert=True),
            HeaderMatch(name="y"),
            HeaderMatch(name="n", range=RangeMatch(start=1, end=5)),
        ),
        query=(
            QueryMatch(name="q"),
            QueryMatch(name="p", match=StringMatch(kind=MatchKind.EXACT, value="v")),
            QueryMatch(name="z", is_absent=True),
        ),
        share=0.25,
    )
    words = "exact /a, not x prefix 1, y present, n from 1 to below 5, ?q, ?p exact v, not ?z, 25 %"
    assert match_text(Route(match=match, action=DirectResponse(status=200))) == words


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (DirectResponse(status=418), "answer 418"),
        (Redirect(status=308), "redirect 308"),
        (Forward(clusters=(WeightedCluster(name="a"),)), "a"),
        (Forward(clusters=(WeightedCluster(name="a", weight=9), WeightedCluster(name="b"))), "a 9, b 1"),
    ],
)
def test_action_in_words(action: DirectResponse | Redirect | Forward, words: str) -> None:
    assert action_text(Route(action=action)) == words


def test_extras_in_words() -> None:
    fault = FaultRule(policy=FaultPolicy(delay_s=2, delay_percent=10, abort_percent=5, abort_status=500))
    limit = LocalRateLimit(bucket=TokenBucketConfig(max_tokens=9, tokens_per_fill=3, fill_interval_s=1.0))
    action = Forward(
        clusters=(WeightedCluster(name="a", filters=FilterSettings(session=SessionPolicy(cookie="c"))),),
        mirrors=(Mirror(cluster="m", share=0.1),),
        hash_policies=(HashPolicy(source=HashSource.SOURCE_IP), HashPolicy(source=HashSource.HEADER, name="x-u")),
        split_by_hash=True,
        prefix_rewrite="/new",
    )
    route = Route(action=action, filters=FilterSettings(fault=fault, disabled=frozenset({FilterKind.CORS})))
    host = VirtualHost(name="h", domains=("*",), routes=(route,), filters=FilterSettings(rate_limit=limit))
    assert extras_text(RouteTable(name="t"), host, route) == (
        "delay 2 s 10 %, abort 500 5 %, limit 3 per 1 s, burst 9, no cors, session by c on a, mirror m 10 %, "
        "hash source_ip, hash header x-u, split by hash, path to /new"
    )
    plain = Route(action=Forward(clusters=(WeightedCluster(name="a"),)), filters=FilterSettings(cors=CorsPolicy()))
    assert extras_text(RouteTable(name="t"), host, plain) == "CORS, limit 3 per 1 s, burst 9"
