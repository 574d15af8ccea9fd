"""Typed views of node.meshwork.dev/v1alpha1: HostImage, a command of the host that stands in for container images."""

from mesh.api.meta import ObjectView, View
from mesh.api.pod import EnvVar


class HostImageSpec(View, frozen=True, kw_only=True):
    match: tuple[str, ...] = ()
    """Image references; `*` stands for any run of characters. The most specific match wins (see docs of node/runtime)."""
    command: tuple[str, ...] = ()
    """As an image's ENTRYPOINT; a container's `command` replaces it."""
    args: tuple[str, ...] = ()
    """As an image's CMD; a container's `args` replaces it."""
    env: tuple[EnvVar, ...] = ()
    """As an image's ENV: plain values; the container's own win."""
    working_dir: str = ""
    """As an image's WORKDIR."""


class HostImage(ObjectView, frozen=True, kw_only=True):
    spec: HostImageSpec = HostImageSpec()
