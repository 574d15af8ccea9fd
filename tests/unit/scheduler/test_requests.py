import pytest

from controlplane.scheduler.requests import amounts_of, pod_requests, scoring_requests
from mesh.api.core import Pod
from mesh.api.resources import Json

pytestmark = pytest.mark.unit


def _container(cpu: str, **more: str) -> Json:
    return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("init", "containers", "milli"),
    [
        ([], [_container("1"), _container("500m")], 1500),
        ([_container("2")], [_container("1")], 2000),
        ([_container("500m")], [_container("1")], 1000),
        ([_container("200m", restartPolicy="Always")], [_container("1")], 1200),
        ([_container("200m", restartPolicy="Always"), _container("1")], [_container("1")], 1200),
        ([_container("1"), _container("200m", restartPolicy="Always")], [_container("500m")], 1000),
        ([_container("200m", restartPolicy="Always"), _container("3")], [_container("1")], 3200),
    ],
)
def test_init_containers_and_sidecars_count_as_in_kubernetes(
    init: list[Json], containers: list[Json], milli: int
) -> None:
    spec = Pod.of({"spec": {"initContainers": init, "containers": containers}}).spec
    assert pod_requests(spec) == {"cpu": milli, "pods": 1}


def test_overhead_adds_and_containers_without_requests_count_for_scoring() -> None:
    spec = Pod.of({"spec": {"containers": [{"name": "a"}], "overhead": {"memory": "1Mi"}}}).spec
    assert pod_requests(spec) == {"memory": 2**20, "pods": 1}
    assert scoring_requests(spec) == (100.0, 200.0 * 2**20)


def test_unreadable_amount_counts_as_absent() -> None:
    assert amounts_of({"cpu": "lots", "memory": "1Ki", "pods": 3}) == {"memory": 1024.0, "pods": 3.0}
