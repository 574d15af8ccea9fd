"""One cluster of three nodes with the canary example for the whole tier: starting it is part of what is tested."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import EXAMPLES, Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes; the canary example is applied and ready."""
    home: Path = tmp_path_factory.mktemp("mesh")
    with running_cluster(home, nodes=3) as running:
        running.mesh("apply", "-f", str(EXAMPLES / "canary" / "00-images.yaml"), "-f", str(EXAMPLES / "canary" / "10-webserver.yaml"),
                     "-f", str(EXAMPLES / "canary" / "20-client.yaml"), "--wait")  # fmt: skip
        yield running
