"""The contract of `controlplane.store.protocol`, for every backend."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.store.config import SqliteConfig
from controlplane.store.errors import (
    CompactedError,
    FutureRevisionError,
    LeaseNotFoundError,
    StoreClosedError,
    StoreFullError,
    StoreLockedError,
    StoreOpenError,
)
from controlplane.store.protocol import Compare, Delete, Event, EventType, KeyValue, LeaseId, Op, Put, Store
from controlplane.store.sqlite import SqliteStore, open_sqlite_store

pytestmark = pytest.mark.conformance

Opener = Callable[[Path], Awaitable[Store]]
ALL = (b"\x00", b"\xff")


async def _open_default(directory: Path) -> Store:
    return await open_sqlite_store(directory / "store.db")


async def _open_tiny_memory(directory: Path) -> Store:
    """Nothing fits in memory: every read of a value and of the past goes to the file."""
    config = SqliteConfig(cache_bytes=1, history_bytes=1, history_revisions=1, pending_bytes=1)
    return await open_sqlite_store(directory / "store.db", config)


BACKENDS: dict[str, Opener] = {"sqlite": _open_default, "sqlite-tiny-memory": _open_tiny_memory}


@pytest.fixture(params=sorted(BACKENDS))
def opener(request: pytest.FixtureRequest) -> Opener:
    return BACKENDS[request.param]


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(work, 30))


@asynccontextmanager
async def opened(opener: Opener, directory: Path) -> AsyncIterator[Store]:
    store = await opener(directory)
    try:
        yield store
    finally:
        await store.close()


@dataclass
class Recorder:
    """What a watch was shown."""

    shown: list[tuple[int, list[Event]]] = field(default_factory=list)
    lost: list[Exception] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_events(self, revision: int, events: Sequence[Event]) -> None:
        self.shown.append((revision, list(events)))
        self._changed.set()

    def on_lost(self, reason: Exception) -> None:
        self.lost.append(reason)
        self._changed.set()

    @property
    def revisions(self) -> list[int]:
        return [revision for revision, _ in self.shown]

    async def until(self, count: int) -> None:
        """Until `count` transactions were shown, or the watch was lost."""
        while len(self.shown) < count and not self.lost:
            self._changed.clear()
            await self._changed.wait()


def watch(store: Store, from_revision: int, start: bytes = ALL[0], end: bytes = ALL[1]) -> Recorder:
    recorder = Recorder()
    store.watch(start, end, from_revision=from_revision, on_events=recorder.on_events, on_lost=recorder.on_lost)
    return recorder


async def put(store: Store, key: bytes, value: bytes) -> int:
    return (await store.txn([], [Put(key, value)])).revision


async def state(store: Store, revision: int = 0) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in (await store.range(*ALL, revision=revision)).kvs}


def test_fresh_store_is_empty_at_revision_one(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            assert (store.revision, store.compacted_revision) == (1, 0)
            assert await store.get(b"a") is None
            assert (await store.range(*ALL)).count == 0

    run(check())


def test_put_counts_versions_and_delete_starts_anew(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            assert [await put(store, b"a", b"1"), await put(store, b"a", b"2")] == [2, 3]
            assert await store.get(b"a") == KeyValue(b"a", b"2", 2, 3, 2)  # type: ignore[arg-type]  # plain ints
            result = await store.txn([], [Delete(b"a")])
            assert (result.revision, result.previous[0] and result.previous[0].value) == (4, b"2")
            assert await store.get(b"a") is None
            await put(store, b"a", b"3")
            assert await store.get(b"a") == KeyValue(b"a", b"3", 5, 5, 1)  # type: ignore[arg-type]  # plain ints

    run(check())


def test_transaction_writes_all_keys_at_one_revision_or_none(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            made = await store.txn([Compare(b"a", 0)], [Put(b"a", b"1"), Put(b"b", b"2"), Delete(b"none")])
            assert made.succeeded
            assert made.revision == 2
            assert made.previous == (None, None, None)
            refused = await store.txn([Compare(b"a", 2), Compare(b"b", 0)], [Put(b"a", b"x"), Delete(b"b")])
            assert not refused.succeeded
            assert refused.revision == 2
            assert [kv and kv.value for kv in refused.current] == [b"1", b"2"]
            assert await state(store) == {b"a": b"1", b"b": b"2"}

    run(check())


def test_transaction_without_effect_makes_no_revision(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            await put(store, b"a", b"1")
            no_effect: list[list[Op]] = [[], [Delete(b"none")]]
            for ops in no_effect:
                result = await store.txn([Compare(b"a", 2)], ops)
                assert (result.succeeded, result.revision) == (True, 2)

    run(check())


def test_key_twice_in_one_transaction_is_refused(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            with pytest.raises(ValueError, match="twice"):
                await store.txn([], [Put(b"a", b"1"), Delete(b"a")])
            assert store.revision == 1

    run(check())


def test_concurrent_compare_and_swap_has_one_winner_per_round(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            for counter in range(1, 6):
                before = await store.get(b"n")
                compare = Compare(b"n", before.mod_revision if before else 0)
                results = await asyncio.gather(*(store.txn([compare], [Put(b"n", b"%d" % i)]) for i in range(8)))
                winners = [i for i, result in enumerate(results) if result.succeeded]
                assert len(winners) == 1
                now = await store.get(b"n")
                assert now is not None
                assert now.value == b"%d" % winners[0]
                assert now.version == counter
                assert all(result.current == (now,) for result in results if not result.succeeded)

    run(check())


def test_range_is_sorted_limited_and_counted(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            await store.txn([], [Put(key, key) for key in (b"c", b"a", b"b", b"d")])
            page = await store.range(b"a", b"d", limit=2)
            assert [kv.key for kv in page.kvs] == [b"a", b"b"]
            assert (page.has_more, page.count, page.revision) == (True, 3, 2)
            rest = await store.range(b"b\x00", b"d", limit=2)
            assert [kv.key for kv in rest.kvs] == [b"c"]
            assert not rest.has_more
            assert [kv.value for kv in (await store.range(b"a", b"c", keys_only=True)).kvs] == [b"", b""]
            assert (await store.range(b"x", b"b")).kvs == ()

    run(check())


def test_reads_at_a_revision_see_that_state(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            states: dict[int, dict[bytes, bytes]] = {1: {}}
            steps: list[list[Op]] = [
                [Put(b"a", b"1"), Put(b"b", b"1")],
                [Put(b"a", b"2"), Delete(b"b")],
                [Put(b"b", b"3"), Delete(b"a")],
                [Put(b"c", b"4")],
            ]
            for ops in steps:
                result = await store.txn([], ops)
                states[result.revision] = await state(store)
            for revision, want in states.items():
                assert await state(store, revision) == want
                page = await store.range(*ALL, revision=revision, limit=1)
                assert page.count == len(want)
                assert page.has_more == (len(want) > 1)
            old = await store.get(b"a", revision=2)
            assert old == KeyValue(b"a", b"1", 2, 2, 1)  # type: ignore[arg-type]  # plain ints
            assert await store.get(b"b", revision=3) is None
            with pytest.raises(FutureRevisionError):
                await store.get(b"a", revision=99)

    run(check())


def test_watch_shows_each_transaction_once_with_previous_values(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            live = watch(store, store.revision + 1)
            await store.txn([], [Put(b"a", b"1"), Put(b"b", b"1")])
            await put(store, b"a", b"2")
            await store.txn([], [Delete(b"a"), Delete(b"none")])
            past = watch(store, 2)
            await put(store, b"c", b"1")
            for recorder in (live, past):
                await recorder.until(4)
                assert recorder.revisions == [2, 3, 4, 5]
                assert [[e.kv.key for e in events] for _, events in recorder.shown] == [
                    [b"a", b"b"],
                    [b"a"],
                    [b"a"],
                    [b"c"],
                ]
                update, removal = recorder.shown[1][1][0], recorder.shown[2][1][0]
                assert update.previous is not None
                assert (update.type, update.kv.value, update.previous.value) == (EventType.PUT, b"2", b"1")
                assert removal.previous is not None
                assert (removal.type, removal.kv.value, removal.previous.value) == (EventType.DELETE, b"", b"2")
                assert removal.kv.mod_revision == 4
            assert live.shown == past.shown

    run(check())


def test_watch_is_limited_to_its_range_and_ends_on_cancel(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            narrow, wide = Recorder(), watch(store, 2)
            handle = store.watch(b"b", b"c", from_revision=2, on_events=narrow.on_events, on_lost=narrow.on_lost)
            await put(store, b"a", b"1")
            await put(store, b"b1", b"1")
            await put(store, b"c", b"1")
            handle.cancel()
            handle.cancel()
            await put(store, b"b2", b"1")
            await wide.until(4)
            assert narrow.revisions == [3]
            assert narrow.lost == []

    run(check())


def test_watch_from_the_past_during_writes_has_no_gap_and_no_repeat(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            for i in range(40):
                await put(store, b"k%d" % (i % 5), b"%d" % i)
            writes = [store.txn([], [Put(b"k%d" % (i % 5), b"x%d" % i)]) for i in range(200)]
            writing = asyncio.gather(*writes)
            recorders = []
            for start in (2, 17, 41):
                recorders.append((start, watch(store, start)))
                await asyncio.sleep(0)
            await writing
            for start, recorder in recorders:
                await recorder.until(242 - start)
                assert recorder.revisions == list(range(start, 242))

    run(check())


def test_failing_watch_callback_loses_only_its_own_watch(
    opener: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            lost: list[Exception] = []

            def fail(revision: int, events: Sequence[Event]) -> None:
                raise RuntimeError("broken watcher")

            store.watch(*ALL, from_revision=2, on_events=fail, on_lost=lost.append)
            healthy = watch(store, 2)
            await put(store, b"a", b"1")
            await put(store, b"a", b"2")
            assert healthy.revisions == [2, 3]
            assert [str(error) for error in lost] == ["broken watcher"]
            assert "a watch callback failed" in caplog.text

    run(check())


def test_compaction_refuses_the_past_and_keeps_the_present(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            for i in range(10):
                await put(store, b"a", b"%d" % i)
                await put(store, b"b%d" % i, b"")
            await store.txn([], [Delete(b"b%d" % i) for i in range(9)])
            at = store.revision - 1
            want = await state(store, at + 1)
            await store.compact(at)
            assert store.compacted_revision == at
            for revision in (2, at):
                with pytest.raises(CompactedError):
                    await store.range(*ALL, revision=revision)
                with pytest.raises(CompactedError):
                    watch(store, revision)
            assert await state(store, at + 1) == want == await state(store)
            late = watch(store, at + 1)
            await late.until(1)
            assert late.revisions == [at + 1]
            with pytest.raises(CompactedError):
                await store.compact(at)
            with pytest.raises(FutureRevisionError):
                await store.compact(store.revision + 1)
        async with opened(opener, tmp_path) as store:
            assert store.compacted_revision == at
            assert await state(store) == want

    run(check())


def test_revision_survives_compaction_of_the_last_deletion(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            await put(store, b"a", b"1")
            await store.txn([], [Delete(b"a")])
            await store.compact(3)
            await put(store, b"b", b"1")
            await store.txn([], [Delete(b"b")])
            await store.compact(5)
            await asyncio.sleep(0.05)  # give the writer a moment to free the rows; the outcome doesn't depend on it
        async with opened(opener, tmp_path) as store:
            assert store.revision == 5
            assert await put(store, b"a", b"2") == 6

    run(check())


def test_lease_expiry_deletes_its_keys_and_shows_it(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            lease = await store.lease_grant(0.08)
            await store.txn([], [Put(b"a", b"1", lease), Put(b"b", b"1", lease), Put(b"moved", b"1", lease)])
            await put(store, b"moved", b"2")
            seen = watch(store, store.revision + 1)
            await seen.until(1)
            assert [(e.type, e.kv.key) for e in seen.shown[0][1]] == [
                (EventType.DELETE, b"a"),
                (EventType.DELETE, b"b"),
            ]
            assert await state(store) == {b"moved": b"2"}
            with pytest.raises(LeaseNotFoundError):
                await store.lease_keep_alive(lease)
            with pytest.raises(LeaseNotFoundError):
                await store.txn([], [Put(b"a", b"1", lease)])

    run(check())


def test_lease_lives_while_it_is_kept_alive_and_ends_when_revoked(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            lease = await store.lease_grant(0.3, lease=LeaseId(77))
            assert lease == 77
            await store.txn([], [Put(b"a", b"1", lease)])
            before = store.revision
            for _ in range(5):
                await asyncio.sleep(0.1)
                assert await store.lease_keep_alive(lease) == 0.3
            assert store.revision == before  # renewals leave no trace in the log
            assert await store.get(b"a") is not None
            await store.lease_revoke(lease)
            assert await store.get(b"a") is None
            assert store.revision == before + 1
            with pytest.raises(LeaseNotFoundError):
                await store.lease_revoke(lease)

    run(check())


def test_leased_keys_expire_after_a_restart(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            lease = await store.lease_grant(0.1)
            await store.txn([], [Put(b"a", b"1", lease)])
        async with opened(opener, tmp_path) as store:
            found = await store.get(b"a")
            assert found is not None
            assert found.lease == lease
            seen = watch(store, store.revision + 1)
            await seen.until(1)
            assert await store.get(b"a") is None

    run(check())


def test_reopened_store_has_everything(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(opener, tmp_path) as store:
            for i in range(20):
                await put(store, b"k%d" % (i % 7), b"%d" % i)
            await store.txn([], [Delete(b"k3")])
            want, middle = (await store.range(*ALL)).kvs, await state(store, 10)
            first = watch(store, 2)
            await first.until(21)
        async with opened(opener, tmp_path) as store:
            assert store.revision == 22
            assert (await store.range(*ALL)).kvs == want
            assert await state(store, 10) == middle
            again = watch(store, 2)
            await again.until(21)
            assert again.shown == first.shown

    run(check())


def test_closed_store_refuses_calls_and_tells_watches(opener: Opener, tmp_path: Path) -> None:
    async def check() -> None:
        store = await opener(tmp_path)
        recorder = watch(store, 2)
        writing = asyncio.gather(*(put(store, b"%d" % i, b"1") for i in range(20)), return_exceptions=True)
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        results = await writing
        written = [result for result in results if isinstance(result, int)]
        assert written  # what was under way is flushed; what still waited for room is refused
        assert recorder.revisions == written
        assert all(isinstance(result, int | StoreClosedError) for result in results)
        assert [type(error) for error in recorder.lost] == [StoreClosedError]
        with pytest.raises(StoreClosedError):
            await store.get(b"a")
        with pytest.raises(StoreClosedError):
            await put(store, b"a", b"1")

    run(check())


# Of the embedded store alone


def test_second_opener_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(_open_default, tmp_path):
            with pytest.raises(StoreLockedError, match="in use by process"):
                await _open_default(tmp_path)
        async with opened(_open_default, tmp_path) as store:
            assert store.revision == 1

    run(check())


def test_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    async def check() -> None:
        (tmp_path / "store.db").write_bytes(b"this is not a database, it only looks long enough to be one" * 40)
        with pytest.raises(StoreOpenError, match="not a database"):
            await _open_default(tmp_path)
        with pytest.raises(StoreOpenError, match="lock file"):
            await _open_default(tmp_path / "missing")

    run(check())


def test_full_store_refuses_the_write_and_recovers_when_space_is_freed(tmp_path: Path) -> None:
    async def check() -> None:
        config = SqliteConfig(quota_bytes=256 << 10)
        store: SqliteStore = await open_sqlite_store(tmp_path / "store.db", config)
        seen = watch(store, 2)
        written = await _put_until_full(store, b"k", bytes(4096))
        assert 10 < written < 64
        assert store.revision == written + 1
        results = await asyncio.gather(
            *(put(store, b"k%d" % i, bytes(200_000)) for i in range(4)), return_exceptions=True
        )
        assert [type(result) for result in results] == [StoreFullError] * 4
        assert "raise the quota" in str(results[0])
        await store.compact(store.revision - 1)
        for _ in range(100):  # the space comes free in small steps
            try:
                await put(store, b"k", b"after")
                break
            except StoreFullError:
                await asyncio.sleep(0.02)
        assert store.revision == written + 2
        assert seen.revisions == list(range(2, written + 3))
        await store.close()
        async with opened(_open_default, tmp_path) as reopened:
            assert await state(reopened) == {b"k": b"after"}

    run(check())


async def _put_until_full(store: Store, key: bytes, value: bytes) -> int:
    for written in range(1000):
        try:
            await put(store, key, value)
        except StoreFullError:
            return written
    raise AssertionError("the store never became full")


def test_memory_for_values_stays_within_its_budget(tmp_path: Path) -> None:
    async def check() -> None:
        config = SqliteConfig(cache_bytes=50_000, history_bytes=50_000)
        store = await open_sqlite_store(tmp_path / "store.db", config)
        await asyncio.gather(*(put(store, b"k%03d" % i, bytes(5000)) for i in range(100)))
        assert store.cached_bytes <= 50_000 + 6000
        assert all(len(kv.value) == 5000 for kv in (await store.range(*ALL)).kvs)
        assert store.cached_bytes <= 50_000 + 6000
        await store.close()

    run(check())


# The model: a history of plain dictionaries

KEYS = [b"a", b"b", b"c"]
OPS = st.lists(
    st.one_of(st.builds(Put, st.sampled_from(KEYS), st.binary(max_size=4)), st.builds(Delete, st.sampled_from(KEYS))),
    min_size=1,
    max_size=3,
    unique_by=lambda op: op.key,
)
STEPS = st.lists(
    st.one_of(OPS, st.just("compact"), st.just("reopen"), st.tuples(st.sampled_from(KEYS), st.integers(0, 6), OPS)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_store_agrees_with_a_model(opener: Opener, tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    run(_follow_model(opener, tmp_path_factory.mktemp("model"), steps))


async def _follow_model(opener: Opener, directory: Path, steps: list[Any]) -> None:
    store = await opener(directory)
    states: dict[int, dict[bytes, bytes]] = {1: {}}
    modified: dict[bytes, int] = {}
    for step in steps:
        now = max(states)
        if step == "reopen":
            await store.close()
            store = await opener(directory)
        elif step == "compact":
            if store.compacted_revision < now - 1:
                await store.compact(now - 1)
        else:
            key, revision, ops = step if isinstance(step, tuple) else (None, 0, step)
            holds = key is None or modified.get(key, 0) == revision
            result = await store.txn([] if key is None else [Compare(key, revision)], ops)
            assert result.succeeded == holds
            effective = [op for op in ops if isinstance(op, Put) or op.key in states[now]]
            if holds and effective:
                states[now + 1] = dict(states[now])
                for op in effective:
                    modified[op.key] = now + 1
                    if isinstance(op, Put):
                        states[now + 1][op.key] = op.value
                    else:
                        del states[now + 1][op.key], modified[op.key]
        assert store.revision == max(states)
        for revision, want in states.items():
            if revision > store.compacted_revision:
                assert await state(store, revision) == want
    recorder = watch(store, store.compacted_revision + 1)
    replayed = dict(states[max(store.compacted_revision, 1)])
    await recorder.until(sum(1 for revision in states if revision > max(store.compacted_revision, 1)))
    for _, events in recorder.shown:
        for event in events:
            if event.type is EventType.PUT:
                replayed[event.kv.key] = event.kv.value
            else:
                del replayed[event.kv.key]
    assert replayed == states[max(states)]
    await store.close()
