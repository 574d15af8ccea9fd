"""Owners and dependents: who is kept, detached, deleted, and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.controllers.garbage import (
    FOREGROUND,
    ORPHAN,
    AwaitDependents,
    Delete,
    Detach,
    Graph,
    Keep,
    OrphanDependents,
    OwnerState,
    Release,
    Thing,
    Verdict,
    detach_patch,
    plan,
    release_patch,
)
from controlplane.controllers.kinds import resource_of_crd, served_resources
from controlplane.controllers.ownership import Owner, adoption_patch, plan_claim
from mesh.api.meta import ObjectMeta, OwnerReference
from mesh.api.pod import Pod
from mesh.api.resources import BUILTIN, PODS, Json
from mesh.api.selectors import label_map_selector

pytestmark = pytest.mark.unit


def _ref(uid: str, *, blocks: bool = False) -> OwnerReference:
    return OwnerReference(api_version="v1", kind="Owner", name=uid, uid=uid, block_owner_deletion=blocks)


def _thing(uid: str, *owners: OwnerReference, finalizers: tuple[str, ...] = (), terminating: bool = False) -> Thing:
    meta = ObjectMeta(
        name=uid,
        uid=uid,
        resource_version="7",
        owner_references=owners,
        finalizers=finalizers,
        deletion_timestamp="2023-11-14T22:00:00Z" if terminating else "",
    )
    return Thing(PODS, meta)


_SOLID, _WAITING, _ABSENT = OwnerState.SOLID, OwnerState.WAITING, OwnerState.ABSENT
_CHILD = _thing("child", _ref("x"))


@pytest.mark.parametrize(
    ("thing", "states", "dependents", "want"),
    [
        (_thing("x"), [], [], Keep()),
        (_thing("x", _ref("a")), [_SOLID], [], Keep()),
        (_thing("x", _ref("a")), [_ABSENT], [], Delete("Background")),
        (_thing("x", _ref("a"), _ref("b")), [_ABSENT, _SOLID], [], Detach(frozenset({"a"}))),
        (_thing("x", _ref("a"), _ref("b")), [_ABSENT, _ABSENT], [], Delete("Background")),
        (_thing("x", _ref("a")), [_WAITING], [], Delete("Background")),
        (_thing("x", _ref("a")), [_WAITING], [_CHILD], Delete("Foreground")),
        (_thing("x", _ref("a"), _ref("b")), [_WAITING, _SOLID], [], Detach(frozenset({"a"}))),
        (_thing("x", _ref("a"), finalizers=(ORPHAN,)), [_ABSENT], [], Delete("Orphan")),
        (_thing("x", _ref("a"), terminating=True), [_ABSENT], [], Keep()),
    ],
)
def test_verdicts_about_dependents(
    thing: Thing, states: list[OwnerState], dependents: list[Thing], want: Verdict
) -> None:
    owners = list(zip(thing.meta.owner_references, states, strict=True))
    assert plan(thing, owners, dependents) == want


def test_foreground_deletion_waits_for_blocking_dependents_only() -> None:
    owner = _thing("a", finalizers=(FOREGROUND,), terminating=True)
    blocking, free = _thing("x", _ref("a", blocks=True)), _thing("y", _ref("a"))
    assert plan(owner, [], [blocking, free]) == AwaitDependents((blocking,))
    assert plan(owner, [], [free]) == Release(FOREGROUND)


def test_orphaning_detaches_first() -> None:
    owner, child = _thing("a", finalizers=(ORPHAN,), terminating=True), _thing("x", _ref("a"))
    assert plan(owner, [], [child]) == OrphanDependents((child,))
    assert plan(owner, [], []) == Release(ORPHAN)


def test_patches_are_conditional_and_keep_the_rest() -> None:
    thing = _thing("x", _ref("a"), _ref("b"), finalizers=("keep", FOREGROUND))
    detach = detach_patch(thing.meta, {"a"})["metadata"]
    assert [ref["uid"] for ref in detach["ownerReferences"]] == ["b"]
    assert (detach["uid"], detach["resourceVersion"]) == ("x", "7")
    assert release_patch(thing.meta, FOREGROUND)["metadata"]["finalizers"] == ["keep"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.sets(st.integers(0, 5), max_size=3)), max_size=40))
def test_graph_knows_exactly_the_dependents(steps: list[tuple[bool, int, set[int]]]) -> None:
    graph, model = Graph(), dict[str, set[str]]()
    for is_put, number, owners in steps:
        uid = str(number)
        if is_put:
            graph.put(_thing(uid, *(_ref(str(owner)) for owner in sorted(owners))))
            model[uid] = {str(owner) for owner in owners}
        else:
            graph.remove(uid)
            model.pop(uid, None)
    for number in range(6):
        want = {uid for uid, owners in model.items() if str(number) in owners}
        assert {thing.uid for thing in graph.dependents(str(number))} == want


def test_claim_adopts_orphans_and_releases_strays() -> None:
    def pod(name: str, label: str, owner: str = "", *, terminating: bool = False) -> Pod:
        meta: Json = {"name": name, "uid": name, "labels": {"app": label}}
        if owner:
            meta["ownerReferences"] = [{"uid": owner, "controller": True, "kind": "ReplicaSet", "name": "rs"}]
        if terminating:
            meta["deletionTimestamp"] = "2023-11-14T22:00:00Z"
        return Pod.of({"metadata": meta})

    pods = [
        pod("mine", "web", "rs"),
        pod("orphan", "web"),
        pod("dying-orphan", "web", terminating=True),
        pod("stray", "other", "rs"),
        pod("foreign", "web", "else"),
        pod("unrelated", "db"),
    ]
    owner = Owner("apps/v1", "ReplicaSet", "rs", "rs")
    claim = plan_claim(owner, label_map_selector({"app": "web"}), pods, owner_is_terminating=False)
    names = [[p.metadata.name for p in group] for group in (claim.owned, claim.adopt, claim.release)]
    assert names == [["mine"], ["orphan"], ["stray"]]
    patch = adoption_patch(pods[1].metadata, owner)["metadata"]
    assert patch["ownerReferences"][-1] == owner.reference()
    ending = plan_claim(owner, label_map_selector({"app": "web"}), pods, owner_is_terminating=True)
    assert (ending.adopt, ending.release) == ((), ())


def test_custom_kinds_count_once_established() -> None:
    crd: Json = {
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "singular": "widget"},
            "versions": [
                {"name": "v1", "served": True, "storage": False},
                {"name": "v2", "served": True, "storage": True},
            ],
        }
    }
    assert resource_of_crd(crd) is None
    crd["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    resource = resource_of_crd(crd)
    assert resource is not None
    assert (resource.api_version, resource.plural, resource.is_namespaced) == ("example.com/v2", "widgets", True)
    assert len(served_resources([crd])) == len(BUILTIN) + 1
