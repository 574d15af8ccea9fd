"""What /version says."""

import platform
from importlib.metadata import PackageNotFoundError, version

from mesh.api.resources import Json

KUBERNETES_MINOR = "32"
"""The Kubernetes release whose API this is; clients decide by it what they may use."""


def version_info() -> Json:
    """version.Info."""
    return {
        "major": "1",
        "minor": KUBERNETES_MINOR,
        "gitVersion": f"v1.{KUBERNETES_MINOR}.0+meshwork.{_own_version()}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def _own_version() -> str:
    try:
        return version("meshwork")
    except PackageNotFoundError:
        return "0"
