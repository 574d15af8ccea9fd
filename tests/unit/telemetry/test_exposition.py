"""Prometheus text: what a parser reads back."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.telemetry.exposition import Exposition, label_text
from mesh.telemetry.istio import Peer, cluster_host, reporter_labels, service_labels

pytestmark = pytest.mark.unit


def test_page_reads_back_with_its_odd_labels() -> None:
    page = Exposition()
    page.family("odd_total", "counter", "Two\nlines \\ here.")
    labels = {"a": 'quote " backslash \\ newline \n', "b": ""}
    page.sample("odd_total", label_text(labels), 3)
    page.family("size", "histogram", "Sizes.")
    page.histogram("size", 'x="1"', (0.5, 1.0, 3600000.0), (1, 0, 2, 4), 12.5)
    families = {family.name: family for family in text_string_to_metric_families(page.render().decode())}
    assert families["odd"].documentation == "Two\nlines \\ here."
    assert (families["odd"].samples[0].labels, families["odd"].samples[0].value) == (labels, 3)
    samples = {(one.name, one.labels.get("le")): one.value for one in families["size"].samples}
    assert samples == {
        ("size_bucket", "0.5"): 1,
        ("size_bucket", "1"): 1,
        ("size_bucket", "3600000"): 3,
        ("size_bucket", "+Inf"): 7,
        ("size_sum", None): 12.5,
        ("size_count", None): 7,
    }


@pytest.mark.parametrize(
    ("host", "name", "namespace"),
    [
        ("web.shop.svc.cluster.local", "web", "shop"),
        ("api.example.com", "api.example.com", "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_service_labels(host: str, name: str, namespace: str) -> None:
    labels = service_labels(host)
    assert (labels["destination_service_name"], labels["destination_service_namespace"]) == (name, namespace)


def test_host_of_a_cluster() -> None:
    assert cluster_host("outbound|80|v1|web.shop.svc.cluster.local") == "web.shop.svc.cluster.local"
    assert cluster_host("PassthroughCluster") == "PassthroughCluster"


def test_reporter_swaps_the_ends() -> None:
    own, other = Peer(workload="me", namespace="a"), Peer(workload="you")
    outbound = reporter_labels(is_inbound=False, own=own, other=other)
    inbound = reporter_labels(is_inbound=True, own=own, other=other)
    assert (outbound["reporter"], outbound["source_workload"], outbound["destination_workload"]) == (
        "source",
        "me",
        "you",
    )
    assert (inbound["reporter"], inbound["source_workload"], inbound["destination_workload"]) == (
        "destination",
        "you",
        "me",
    )
    assert outbound["destination_version"] == "unknown"
