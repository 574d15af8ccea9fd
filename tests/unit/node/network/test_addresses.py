"""Addresses of pods: one each, kept over restarts, not reused at once."""

from pathlib import Path

import pytest

from node.network.addresses import AddressBook
from node.network.errors import AddressesExhaustedError, NetworkError

pytestmark = pytest.mark.unit


def book(path: Path, cidr: str = "10.244.1.0/24") -> AddressBook:
    made = AddressBook(cidr, path / "addresses.json")
    made.load()
    return made


def test_first_pod_gets_the_address_after_the_gateway(tmp_path: Path) -> None:
    addresses = book(tmp_path)
    assert addresses.gateway == "10.244.1.1"
    assert addresses.allocate("u1", "ns", "a", intercept=False).address == "10.244.1.2"
    assert addresses.allocate("u2", "ns", "b", intercept=False).address == "10.244.1.3"


def test_asking_again_gives_the_same_address(tmp_path: Path) -> None:
    addresses = book(tmp_path)
    first = addresses.allocate("u1", "ns", "a", intercept=True)
    assert addresses.allocate("u1", "ns", "a", intercept=False) is first


def test_allocations_survive_a_restart(tmp_path: Path) -> None:
    first = book(tmp_path).allocate("u1", "ns", "a", intercept=True)
    again = book(tmp_path)
    assert again.allocations == {"u1": first}
    assert again.at(first.address) == first
    assert again.allocate("u2", "ns", "b", intercept=False).address == "10.244.1.3"


def test_released_address_comes_back_last(tmp_path: Path) -> None:
    addresses = book(tmp_path, "10.244.1.0/29")
    given = [addresses.allocate(f"u{n}", "ns", "p", intercept=False).address for n in range(3)]
    addresses.release("u0")
    assert addresses.allocate("u3", "ns", "p", intercept=False).address == "10.244.1.5"
    assert addresses.allocate("u4", "ns", "p", intercept=False).address == "10.244.1.6"
    assert addresses.allocate("u5", "ns", "p", intercept=False).address == given[0]


def test_a_full_range_is_a_clear_error(tmp_path: Path) -> None:
    addresses = book(tmp_path, "10.244.1.0/30")
    addresses.allocate("u1", "ns", "a", intercept=False)
    with pytest.raises(AddressesExhaustedError, match=r"pod ns/b: all 1 addresses of 10\.244\.1\.0/30 are taken"):
        addresses.allocate("u2", "ns", "b", intercept=False)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"pods": [{"uid": "u"}], "last": "10.244.1.1"}',
     '{"pods": [{"uid":"u","namespace":"n","name":"p","address":"10.9.9.9","intercept":false}], "last": "10.244.1.1"}'],
)  # fmt: skip
def test_damaged_file_is_put_aside(tmp_path: Path, content: str) -> None:
    (tmp_path / "addresses.json").write_text(content)
    addresses = book(tmp_path)
    assert addresses.allocations == {}
    assert (tmp_path / "addresses.damaged").read_text() == content
    addresses.allocate("u1", "ns", "a", intercept=False)


def test_too_small_a_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="too small"):
        AddressBook("10.244.1.0/31", tmp_path / "a.json")
