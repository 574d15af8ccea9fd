"""Which command of the host stands in for a container image. Pure.

The most specific match wins: the pattern with the most literal characters, then the fewest `*`, then the HostImage whose
name sorts first. An image without tag or digest is also tried as `image:latest`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from mesh.api.node import HostImage
from mesh.api.pod import Container
from node.errors import ContainerConfigError, ImageError

HOST = "host"
"""The image that is always there and has no command of its own."""
SIDECAR = "meshwork/sidecar"
"""The built-in image that the sidecar spawner runs, with any tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """What an image stands for."""

    host_image: str
    """Name of the HostImage; `host` and `meshwork/sidecar` for the built-in ones."""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    is_sidecar: bool = False


def resolve_image(image: str, host_images: Iterable[HostImage]) -> ResolvedImage:
    """What `image` stands for. Raises ImageError, whose message says how to define it."""
    name = _with_tag(image)
    if name.rpartition(":")[0] == SIDECAR:
        return ResolvedImage(host_image=SIDECAR, is_sidecar=True)
    candidates = [
        (_specificity(pattern), host_image.metadata.name, host_image)
        for host_image in host_images
        for pattern in host_image.spec.match
        if _matches(pattern, image) or _matches(pattern, name)
    ]
    if candidates:
        _, _, best = min(candidates, key=lambda candidate: candidate[:2])
        return _from_host_image(best)
    if image in (HOST, f"{HOST}:latest"):
        return ResolvedImage(host_image=HOST)
    raise ImageError(
        f'image "{image}" has no HostImage on this cluster: this node runs programs of the machine instead of pulling images. '
        f"Say which one stands for it: apply a HostImage (apiVersion: node.meshwork.dev/v1alpha1, kind: HostImage, "
        f'metadata: {{name: ...}}, spec: {{match: ["{image}"], command: [...]}}), or use the image "host" with a command'
    )


def _from_host_image(found: HostImage) -> ResolvedImage:
    return ResolvedImage(
        host_image=found.metadata.name,
        command=found.spec.command,
        args=found.spec.args,
        env=tuple((variable.name, variable.value) for variable in found.spec.env),
        working_dir=found.spec.working_dir,
    )


def command_line(container: Container, image: ResolvedImage) -> tuple[str, ...]:
    """Program and arguments before $(VAR) expansion, as Kubernetes combines them with an image's ENTRYPOINT and CMD.

    Raises ContainerConfigError when that gives no program. A sidecar's has arguments only and may be empty.
    """
    if container.command:
        line = container.command + container.args
    else:
        line = image.command + (container.args or image.args)
    if not line and not image.is_sidecar:
        raise ContainerConfigError(
            f'container "{container.name}": no command specified: image "{container.image}" (HostImage {image.host_image}) '
            "has none, so give the container a command"
        )
    return line


def _with_tag(image: str) -> str:
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def _specificity(pattern: str) -> tuple[int, int]:
    """Smaller is more specific."""
    stars = pattern.count("*")
    return stars - len(pattern), stars


def _matches(pattern: str, image: str) -> bool:
    return _expression(pattern).fullmatch(image) is not None


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", pattern)))
