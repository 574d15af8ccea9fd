"""Which HostImage stands for an image."""

import pytest

from mesh.api.node import HostImage
from mesh.api.pod import Container
from node.errors import ContainerConfigError, ImageError
from node.runtime.images import ResolvedImage, command_line, resolve_image

pytestmark = pytest.mark.unit


def host_image(name: str, *match: str) -> HostImage:
    return HostImage.of({"metadata": {"name": name}, "spec": {"match": list(match), "command": [name]}})


IMAGES = (
    host_image("any-acme", "acme/*"),
    host_image("web", "acme/web:*"),
    host_image("web-2", "acme/web:2"),
    host_image("tomcat", "tomcat"),
    host_image("latest", "redis:latest"),
    host_image("z-twin", "twin:1"),
    host_image("a-twin", "twin:1"),
)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("acme/web:2", "web-2"),
        ("acme/web:3", "web"),
        ("acme/web", "web"),
        ("acme/db:1", "any-acme"),
        ("acme/team/db", "any-acme"),
        ("tomcat", "tomcat"),
        ("redis", "latest"),
        ("redis:latest", "latest"),
        ("twin:1", "a-twin"),
        ("host", "host"),
        ("meshwork/sidecar", "meshwork/sidecar"),
        ("meshwork/sidecar:0.1.0", "meshwork/sidecar"),
    ],
)
def test_the_most_specific_match_wins(image: str, expected: str) -> None:
    for images in (IMAGES, tuple(reversed(IMAGES))):
        assert resolve_image(image, images).host_image == expected


@pytest.mark.parametrize(
    "image", ["tomcat:9", "acme", "other/web:2", "redis:7", "registry:5000/tomcat", "meshwork/sidecars"]
)
def test_an_unknown_image_says_how_to_define_it(image: str) -> None:
    with pytest.raises(ImageError, match="kind: HostImage") as caught:
        resolve_image(image, IMAGES)
    assert f'match: ["{image}"]' in str(caught.value)


def test_a_host_image_may_replace_the_builtin_host() -> None:
    assert resolve_image("host", (host_image("mine", "host"),)).host_image == "mine"


IMAGE = ResolvedImage(host_image="i", command=("entry",), args=("default",))
NO_COMMAND = ResolvedImage(host_image="host")


@pytest.mark.parametrize(
    ("command", "args", "image", "expected"),
    [
        ((), (), IMAGE, ("entry", "default")),
        ((), ("a",), IMAGE, ("entry", "a")),
        (("c",), (), IMAGE, ("c",)),
        (("c",), ("a",), IMAGE, ("c", "a")),
        ((), ("a",), NO_COMMAND, ("a",)),
    ],
)
def test_command_and_args_combine_as_in_kubernetes(
    command: tuple[str, ...], args: tuple[str, ...], image: ResolvedImage, expected: tuple[str, ...]
) -> None:
    assert command_line(Container(name="c", command=command, args=args), image) == expected


def test_no_command_at_all_is_an_error_that_names_the_container() -> None:
    with pytest.raises(ContainerConfigError, match='container "c": no command specified'):
        command_line(Container(name="c", image="host"), NO_COMMAND)
