"""What to do next about a pod: tables over `plan`, and a model run of whole lives."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.pod import Pod
from mesh.net.spawn import Record
from node.agent.plan import Action, Finish, Settings, SetUp, Start, Stop, TearDown, plan, restart_delay_s
from node.agent.state import ContainerFacts, PodState, Termination, ended, started
from node.agent.status import pod_phase, pod_status

pytestmark = pytest.mark.unit

NOW = 1_000_000.0
SETTINGS = Settings()


def pod(*containers: str, init: tuple[str, ...] = (), namespace: str = "default", **spec: Any) -> Pod:
    """A pod; an init container whose name begins with `side` is a sidecar."""
    inits = [{"name": name, **({"restartPolicy": "Always"} if name.startswith("side") else {})} for name in init]
    deleting = {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 30} if spec.pop("deleting", False) else {}
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": namespace, "uid": "u", **deleting},
            "spec": {"containers": [{"name": name} for name in containers], "initContainers": inits, **spec},
            "status": spec.pop("status", {}),
        }
    )


def running(attempt: int = 1, **more: Any) -> ContainerFacts:
    record = Record(id=f"u/c/{attempt}", pid=1, start_ticks=1, started_at=NOW - 5)
    return ContainerFacts(**{"attempt": attempt, "running": record, "is_started": True, **more})


def over(code: int, *, ago_s: float = 0.0, crashes: int = 1, attempt: int = 1) -> ContainerFacts:
    end = Termination(exit_code=code, finished_at=NOW - ago_s, started_at=NOW - ago_s - 1, attempt=attempt)
    return ContainerFacts(attempt=attempt, last=end, crashes=crashes)


def state(**containers: ContainerFacts) -> PodState:
    return PodState(pod={}, address="10.0.0.1", has_sandbox=True, containers=containers, started_at=NOW - 60)


NOTHING = PodState(pod={}, started_at=NOW - 60)


def ending(base: PodState, *, ago_s: float = 0.0, **more: Any) -> PodState:
    return msgspec.structs.replace(base, terminating_since=NOW - ago_s, **more)


def actions(wanted: Pod, known: PodState) -> tuple[Action, ...]:
    return plan(wanted, known, NOW, SETTINGS).actions


def test_network_and_volumes_come_first() -> None:
    assert actions(pod("a"), NOTHING) == (SetUp(),)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, ["i1"]),
        ({"i1": running()}, []),
        ({"i1": over(1, crashes=1)}, ["i1"]),
        ({"i1": over(1, crashes=3)}, []),
        ({"i1": over(0)}, ["side1"]),
        ({"i1": over(0), "side1": running(is_started=False)}, []),
        ({"i1": over(0), "side1": running()}, ["i2"]),
        ({"i1": over(0), "side1": over(1), "i2": running()}, ["side1"]),
        ({"i1": over(0), "side1": running(), "i2": over(0)}, ["a", "b"]),
        ({"i1": over(0), "side1": running(), "i2": over(0), "a": running()}, ["b"]),
        ({"i1": over(0), "side1": over(1), "i2": over(0), "a": running(), "b": running()}, ["side1"]),
        ({"i1": over(0), "side1": running(), "i2": over(0), "a": over(1, crashes=2), "b": running()}, []),
        ({"i1": over(0), "side1": running(), "i2": over(0), "a": over(1, crashes=2, ago_s=11), "b": running()}, ["a"]),
    ],
)
def test_containers_start_in_their_order(known: dict[str, ContainerFacts], expected: list[str]) -> None:
    wanted = pod("a", "b", init=("i1", "side1", "i2"))
    assert actions(wanted, state(**known)) == tuple(Start(name) for name in expected)


@pytest.mark.parametrize(
    ("policy", "code", "restarts", "phase"),
    [
        ("Always", 0, True, ""),
        ("Always", 1, True, ""),
        ("OnFailure", 0, False, "Succeeded"),
        ("OnFailure", 1, True, ""),
        ("Never", 0, False, "Succeeded"),
        ("Never", 1, False, "Failed"),
    ],
)
def test_restart_policy_decides_after_an_end(policy: str, code: int, restarts: bool, phase: str) -> None:
    result = plan(pod("a", restartPolicy=policy), state(a=over(code)), NOW, SETTINGS)
    assert result.actions == ((Start("a"),) if restarts else ())
    assert result.final_phase == phase


def test_a_failed_init_container_fails_the_pod_only_with_never() -> None:
    known = state(i=over(1))
    assert plan(pod("a", init=("i",), restartPolicy="Never"), known, NOW, SETTINGS).final_phase == "Failed"
    assert actions(pod("a", init=("i",), restartPolicy="OnFailure"), known) == (Start("i"),)


def test_waits_double_to_the_cap() -> None:
    waits = [restart_delay_s(crashes, SETTINGS) for crashes in range(1, 9)]
    assert waits == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert restart_delay_s(10_000, SETTINGS) == 300.0


def test_the_plan_says_when_to_look_again() -> None:
    assert plan(pod("a"), state(a=over(1, crashes=2, ago_s=4)), NOW, SETTINGS).wake_at == NOW + 6


def test_a_long_run_forgets_earlier_crashes() -> None:
    record = Record(id="u/a/5", pid=1, start_ticks=1, started_at=NOW - 601, exit_status=1, finished_at=NOW)
    facts = ended(running(5, crashes=4), record, restart_reset_s=600.0)
    assert facts.crashes == 1
    short = msgspec.structs.replace(record, started_at=NOW - 10)
    assert ended(running(5, crashes=4), short, restart_reset_s=600.0).crashes == 5


def test_a_pod_past_its_deadline_fails() -> None:
    result = plan(pod("a", activeDeadlineSeconds=60), state(a=running()), NOW, SETTINGS)
    assert (result.final_phase, result.final_reason) == ("Failed", "DeadlineExceeded")


def stops(wanted: Pod, known: PodState) -> list[str]:
    return [action.name for action in actions(wanted, known) if isinstance(action, Stop)]


def test_a_finished_pod_ends_its_sidecars_and_then_gives_its_network_back() -> None:
    wanted = pod("a", init=("side1", "side2"), restartPolicy="Never")
    done = {"final_phase": "Succeeded"}
    both = msgspec.structs.replace(state(a=over(0), side1=running(), side2=running()), **done)
    assert stops(wanted, both) == ["side2"]
    one = msgspec.structs.replace(state(a=over(0), side1=running(), side2=over(0)), **done)
    assert stops(wanted, one) == ["side1"]
    none = msgspec.structs.replace(state(a=over(0), side1=over(0), side2=over(0)), **done)
    assert actions(wanted, none) == (TearDown(),)
    assert actions(wanted, msgspec.structs.replace(none, has_sandbox=False)) == ()


@pytest.mark.parametrize(
    ("namespace", "conditions", "ago_s", "is_gone", "waits"),
    [
        ("shop", [], 0.0, False, True),
        ("shop", [], 5.0, False, False),
        ("shop", [{"type": "meshwork.dev/Drained", "status": "True"}], 0.0, False, False),
        ("shop", [{"type": "meshwork.dev/Drained", "status": "False"}], 0.0, False, True),
        ("kube-system", [], 0.0, False, False),
        ("shop", [], 0.0, True, False),
    ],
)
def test_apps_stop_when_every_proxy_has_let_go(
    namespace: str, conditions: list[dict[str, str]], ago_s: float, is_gone: bool, waits: bool
) -> None:
    wanted = pod("a", init=("side",), namespace=namespace, deleting=True, status={"conditions": conditions})
    wanted = msgspec.structs.replace(wanted, status=Pod.of({"status": {"conditions": conditions}}).status)
    known = ending(state(a=running(), side=running()), ago_s=ago_s, is_gone=is_gone)
    assert stops(wanted, known) == ([] if waits else ["a"])


def test_sidecars_outlive_the_apps_of_a_deleted_pod() -> None:
    wanted = pod("a", init=("side",), deleting=True)
    late = {"ago_s": 10.0}
    assert stops(wanted, ending(state(a=running(is_stopping=True), side=running()), **late)) == []
    assert stops(wanted, ending(state(a=over(0), side=running()), **late)) == ["side"]
    assert actions(wanted, ending(state(a=over(0), side=over(0)), **late)) == (TearDown(), Finish())


def test_a_forced_deletion_gives_no_grace() -> None:
    wanted = pod("a", deleting=True)
    meta = msgspec.structs.replace(wanted.metadata, deletion_grace_period_seconds=0)
    (stop,) = actions(msgspec.structs.replace(wanted, metadata=meta), ending(state(a=running())))
    assert isinstance(stop, Stop)
    assert stop.grace_s == 0.0


@pytest.mark.parametrize(
    ("known", "phase"),
    [
        ({}, "Pending"),
        ({"i": running()}, "Pending"),
        ({"i": over(0), "a": running()}, "Pending"),
        ({"i": over(0), "a": running(), "b": running()}, "Running"),
        ({"i": over(0), "a": over(1), "b": running()}, "Running"),
        ({"i": over(0), "a": over(1), "b": over(1)}, "Running"),
    ],
)
def test_phase_follows_kubernetes(known: dict[str, ContainerFacts], phase: str) -> None:
    assert pod_phase(pod("a", "b", init=("i",)), state(**known)) == phase


@pytest.mark.parametrize(
    ("facts", "state_key", "reason"),
    [
        (ContainerFacts(), "waiting", "ContainerCreating"),
        (running(), "running", None),
        (over(1, crashes=1, ago_s=1), "terminated", ""),
        (over(1, crashes=3, ago_s=1), "waiting", "CrashLoopBackOff"),
    ],
)
def test_container_states(facts: ContainerFacts, state_key: str, reason: str | None) -> None:
    status = pod_status(pod("a"), state(a=facts), NOW, SETTINGS, host_ip="1.1.1.1")["containerStatuses"][0]
    assert list(status["state"]) == [state_key]
    if reason is not None:
        assert status["state"][state_key]["reason"] == reason


def test_readiness_needs_every_container_and_every_gate() -> None:
    wanted = Pod.of(
        {
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {
                "containers": [{"name": "a", "readinessProbe": {"tcpSocket": {"port": 1}}}],
                "readinessGates": [{"conditionType": "example.com/open"}],
            },
        }
    )

    def ready(wanted: Pod, facts: ContainerFacts) -> tuple[str, str]:
        status = pod_status(wanted, state(a=facts), NOW, SETTINGS, host_ip="1.1.1.1")
        found = {c["type"]: c["status"] for c in status["conditions"]}
        return found["ContainersReady"], found["Ready"]

    assert ready(wanted, running(is_ready=False)) == ("False", "False")
    assert ready(wanted, running(is_ready=True)) == ("True", "False")
    opened = Pod.of({"status": {"conditions": [{"type": "example.com/open", "status": "True"}]}}).status
    assert ready(msgspec.structs.replace(wanted, status=opened), running(is_ready=True)) == ("True", "True")


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    old = [{"type": "ContainersReady", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
    wanted = msgspec.structs.replace(pod("a"), status=Pod.of({"status": {"conditions": old}}).status)
    for facts, kept in ((running(), True), (over(1), False)):
        conditions = pod_status(wanted, state(a=facts), NOW, SETTINGS, host_ip="1.1.1.1")["conditions"]
        time = next(c["lastTransitionTime"] for c in conditions if c["type"] == "ContainersReady")
        assert (time == "2020-01-01T00:00:00Z") is kept


@given(
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    events=st.lists(
        st.tuples(st.sampled_from(["end", "crash", "started", "wait", "delete"]), st.integers(0, 3)), max_size=40
    ),
)
def test_whole_lives_keep_the_rules(policy: str, events: list[tuple[str, int]]) -> None:
    """Whatever happens, an app never starts before its init containers are done, and never outlives its sidecar on deletion."""
    wanted = pod("a", "b", init=("i", "side"), restartPolicy=policy)
    known, now, names = NOTHING, NOW, ("i", "side", "a", "b")

    def settle() -> bool:
        """Carry out plans until there is nothing to do; True when the pod is finished."""
        nonlocal known
        for _ in range(50):
            result = plan(wanted, known, now, SETTINGS)
            if result.final_phase:
                known = msgspec.structs.replace(known, final_phase=result.final_phase)
            for action in result.actions:
                match action:
                    case SetUp():
                        known = msgspec.structs.replace(known, has_sandbox=True)
                    case Start(name):
                        facts = known.facts(name)
                        assert facts.running is None
                        if name in ("a", "b"):
                            assert known.facts("i").last is not None
                            assert known.facts("side").attempt > 0
                        record = Record(id=name, pid=1, start_ticks=1, started_at=now)
                        begun = started(facts, record, facts.attempt + 1, image="", is_forked=False)
                        is_started = name != "side"
                        known = known.with_facts(name, msgspec.structs.replace(begun, is_started=is_started))
                    case Stop(name, _, _):
                        if name == "side":
                            assert not any(known.facts(app).running for app in ("a", "b"))
                        known = end_container(known, name, -15, now)
                    case TearDown():
                        assert not any(facts.running for facts in known.containers.values())
                        known = msgspec.structs.replace(known, has_sandbox=False)
                    case Finish():
                        return True
            if not result.actions and not result.final_phase:
                return False
        raise AssertionError("plans never settle")

    for kind, index in events:
        name = names[index]
        facts = known.facts(name)
        if kind == "wait":
            now += 100 * (index + 1)
        elif kind == "delete":
            known = msgspec.structs.replace(known, terminating_since=now - SETTINGS.drain_timeout_s)
        elif facts.running is not None and kind == "started":
            known = known.with_facts(name, msgspec.structs.replace(facts, is_started=True))
        elif facts.running is not None:
            known = end_container(known, name, 0 if kind == "end" else 1, now)
        if settle():
            assert known.terminating_since is not None
            return


def end_container(known: PodState, name: str, status: int, now: float) -> PodState:
    facts = known.facts(name)
    assert facts.running is not None
    record = msgspec.structs.replace(facts.running, exit_status=status, finished_at=now)
    return known.with_facts(name, ended(facts, record, restart_reset_s=600.0))
