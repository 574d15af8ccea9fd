"""The ring and the Maglev table: whose keys, how evenly, and how few move."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.balance.config import is_prime
from mesh.balance.endpoint import Endpoint
from mesh.balance.hashing import hash64, placing_name
from mesh.balance.maglev import MaglevTable
from mesh.balance.placement import HashTable
from mesh.balance.ring import HashRing

pytestmark = pytest.mark.unit

SIZE = 4099
KEYS = [hash64(b"key %d" % i) for i in range(4000)]


def ring(
    names: Sequence[str], weights: Sequence[float] | None = None, min_size: int = 1024, max_size: int = 1 << 23
) -> HashRing:
    table = HashRing(min_size, max_size)
    for _ in table.fill(names, weights or [1 / len(names)] * len(names)):
        pass
    return table


def maglev(names: Sequence[str], weights: Sequence[float] | None = None, size: int = SIZE) -> MaglevTable:
    table = MaglevTable(size)
    for _ in table.fill(names, weights or [1 / len(names)] * len(names)):
        pass
    return table


def owners(table: HashTable, names: Sequence[str]) -> list[str]:
    return [names[table.index(key)] for key in KEYS]


def some(count: int) -> list[str]:
    return [f"10.0.{i // 200}.{i % 200 + 1}:80" for i in range(count)]


def test_the_hash_is_xxh64() -> None:
    assert hash64(b"") == 0xEF46DB3751D8E999
    assert hash64(b"10.0.0.1:80_0", 0) != hash64(b"10.0.0.1:80_0", 1)


def plain_maglev(names: Sequence[str], weights: Sequence[float], size: int) -> list[int]:
    """The paper's listing, word for word, with Envoy's weights."""
    order = sorted(range(len(names)), key=names.__getitem__)
    offset = [hash64(names[i].encode()) % size for i in order]
    skip = [hash64(names[i].encode(), 1) % (size - 1) + 1 for i in order]
    tried, due, table = [0] * len(order), [0.0] * len(order), [-1] * size
    filled = turn = 0
    while True:
        turn += 1
        for i, owner in enumerate(order):
            if turn * weights[owner] < due[i]:
                continue
            due[i] += max(weights)
            while table[(offset[i] + tried[i] * skip[i]) % size] != -1:
                tried[i] += 1
            table[(offset[i] + tried[i] * skip[i]) % size] = owner
            tried[i] += 1
            filled += 1
            if filled == size:
                return table


@settings(deadline=None, max_examples=40)
@given(
    st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=12), st.sampled_from([2, 3, 11, 211, 1009]), st.data()
)
def test_maglev_is_the_papers_table(found: set[str], size: int, data: st.DataObject) -> None:
    names = data.draw(st.permutations(sorted(found)))
    given_weights = data.draw(st.lists(st.integers(1, 9), min_size=len(names), max_size=len(names)))
    weights = [weight / sum(given_weights) for weight in given_weights]
    table = maglev(names, weights, size)
    assert [table.index(slot) for slot in range(size)] == plain_maglev(names, weights, size)


@pytest.mark.parametrize("make", [ring, maglev])
def test_order_makes_no_difference(make: type) -> None:
    names = some(20)
    mixed = random.Random(1).sample(names, len(names))
    assert owners(make(names), names) == owners(make(mixed), mixed)


def test_maglev_is_even_and_the_ring_nearly() -> None:
    names = some(10)
    even = Counter(owners(maglev(names), names))
    assert max(even.values()) / min(even.values()) < 1.25
    ringed = Counter(owners(ring(names, min_size=8192), names))
    assert max(ringed.values()) / min(ringed.values()) < 1.5


@pytest.mark.parametrize(("make", "tolerance"), [(lambda n, w: ring(n, w, min_size=16384), 0.05), (maglev, 0.02)])
def test_weights_are_shares(make: type, tolerance: float) -> None:
    names = ["a:1", "b:1", "c:1"]
    counts = Counter(owners(make(names, [0.6, 0.3, 0.1]), names))
    assert counts["a:1"] / len(KEYS) == pytest.approx(0.6, abs=tolerance)
    assert counts["c:1"] / len(KEYS) == pytest.approx(0.1, abs=tolerance)


@pytest.mark.parametrize(("make", "others"), [(ring, 0.1), (maglev, 0.05)])
def test_a_host_that_leaves_moves_little_but_its_own_keys(make: type, others: float) -> None:
    names = some(16)
    before = owners(make(names), names)
    left = names[:5] + names[6:]
    after = owners(make(left), left)
    moved = sum(1 for old, new in zip(before, after, strict=True) if old != new and old != names[5])
    assert moved < others * len(KEYS)
    assert names[5] not in after


def test_with_equally_many_places_only_the_leaving_hosts_keys_move() -> None:
    names = some(16)
    left = names[:5] + names[6:]
    before, after = owners(ring(names, min_size=1024), names), owners(ring(left, min_size=960), left)
    assert all(new == old or old == names[5] for old, new in zip(before, after, strict=True))


def test_the_ring_has_a_whole_number_of_places_for_the_lightest() -> None:
    assert ring(["a:1", "b:1", "c:1"], [1 / 3] * 3).size == 1026
    assert ring(["a:1", "b:1"], [0.75, 0.25], min_size=6).size == 8
    assert ring(some(8), min_size=1, max_size=4).size == 4
    assert ring(some(2000)).size == 2000


def test_the_next_place_clockwise_owns_a_key() -> None:
    table = ring(["a:1", "b:1"], min_size=4)
    places = sorted((hash64(b"%b_%d" % (name, i)), name) for name in (b"a:1", b"b:1") for i in range(2))
    for at, (place, name) in enumerate(places):
        assert [b"a:1", b"b:1"][table.index(place)] == name
        assert [b"a:1", b"b:1"][table.index(place + 1)] == places[(at + 1) % 4][1]
        assert [b"a:1", b"b:1"][table.index(place, attempt=1)] == places[(at + 1) % 4][1]


@pytest.mark.parametrize("make", [ring, maglev])
def test_an_empty_table_owns_nothing(make: type) -> None:
    table = HashRing(1024, 2048) if make is ring else MaglevTable(11)
    assert list(table.fill([], [])) == []
    with pytest.raises(IndexError):
        table.index(1)


def test_filling_pauses_often() -> None:
    assert len(list(MaglevTable(65537).fill(some(10), [0.1] * 10))) > 20
    assert len(list(HashRing(65536, 65536).fill(some(4), [0.25] * 4))) >= 15


def test_what_an_endpoint_is_placed_by() -> None:
    plain = Endpoint(address="fd00::1", port=80, hostname="web-1")
    assert placing_name(plain) == "[fd00::1]:80"
    assert placing_name(plain, uses_hostname=True) == "web-1"
    named = Endpoint(address="10.0.0.1", port=80, labels=(("hash_key", "shard-3"), ("v", "1")))
    assert placing_name(named, uses_hostname=True) == "shard-3"


def test_primes() -> None:
    assert [n for n in range(30) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    assert is_prime(65537)
    assert is_prime(5_000_011)
