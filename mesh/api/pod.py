"""Typed views of Pod and of everything in a pod template. Source: Kubernetes API reference v1.32, core/v1."""

from collections.abc import Mapping

import msgspec

from mesh.api.meta import (
    Condition,
    IntOrString,
    LabelSelector,
    LocalObjectReference,
    ObjectMeta,
    ObjectView,
    Quantity,
    View,
)


class ObjectFieldSelector(View, frozen=True, kw_only=True):
    """A field of the pod itself, such as `status.podIP` or `metadata.labels['app']`."""

    api_version: str = "v1"
    field_path: str = ""


class ResourceFieldSelector(View, frozen=True, kw_only=True):
    container_name: str = ""
    resource: str = ""
    divisor: Quantity = "0"


class KeySelector(View, frozen=True, kw_only=True):
    """A key of a ConfigMap or Secret of the pod's namespace."""

    name: str = ""
    key: str = ""
    optional: bool = False


class EnvVarSource(View, frozen=True, kw_only=True):
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(View, frozen=True, kw_only=True):
    name: str = ""
    value: str = ""
    """May hold $(NAME) references to earlier variables."""
    value_from: EnvVarSource | None = None


class EnvFromReference(View, frozen=True, kw_only=True):
    name: str = ""
    optional: bool = False


class EnvFromSource(View, frozen=True, kw_only=True):
    prefix: str = ""
    config_map_ref: EnvFromReference | None = None
    secret_ref: EnvFromReference | None = None


class ContainerPort(View, frozen=True, kw_only=True):
    name: str = ""
    container_port: int = 0
    host_port: int = 0
    host_ip: str = msgspec.field(name="hostIP", default="")
    protocol: str = "TCP"


class ResourceRequirements(View, frozen=True, kw_only=True):
    requests: Mapping[str, Quantity] = {}
    limits: Mapping[str, Quantity] = {}


class VolumeMount(View, frozen=True, kw_only=True):
    name: str = ""
    mount_path: str = ""
    sub_path: str = ""
    read_only: bool = False


class ExecAction(View, frozen=True, kw_only=True):
    command: tuple[str, ...] = ()


class HttpHeader(View, frozen=True, kw_only=True):
    name: str = ""
    value: str = ""


class HttpGetAction(View, frozen=True, kw_only=True):
    path: str = "/"
    port: IntOrString = 0
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocketAction(View, frozen=True, kw_only=True):
    port: IntOrString = 0
    host: str = ""


class GrpcAction(View, frozen=True, kw_only=True):
    port: int = 0
    service: str = ""


class Probe(View, frozen=True, kw_only=True):
    """Exactly one of exec, http_get, tcp_socket and grpc is set."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class SleepAction(View, frozen=True, kw_only=True):
    seconds: int = 0


class LifecycleHandler(View, frozen=True, kw_only=True):
    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(View, frozen=True, kw_only=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class Capabilities(View, frozen=True, kw_only=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SecurityContext(View, frozen=True, kw_only=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    privileged: bool = False
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities = Capabilities()


class PodSecurityContext(View, frozen=True, kw_only=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()


class Container(View, frozen=True, kw_only=True):
    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    """Replaces the image's ENTRYPOINT."""
    args: tuple[str, ...] = ()
    """Replaces the image's CMD."""
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    env: tuple[EnvVar, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    volume_mounts: tuple[VolumeMount, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle = Lifecycle()
    restart_policy: str = ""
    """Init containers only: "Always" makes a native sidecar."""
    image_pull_policy: str = ""
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    security_context: SecurityContext = SecurityContext()
    stdin: bool = False
    tty: bool = False

    @property
    def is_sidecar(self) -> bool:
        """An init container that keeps running beside the app (Kubernetes 1.29 "sidecar containers")."""
        return self.restart_policy == "Always"


class KeyToPath(View, frozen=True, kw_only=True):
    key: str = ""
    path: str = ""
    mode: int | None = None


class EmptyDirVolume(View, frozen=True, kw_only=True):
    medium: str = ""
    size_limit: Quantity = ""


class ConfigMapVolume(View, frozen=True, kw_only=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class SecretVolume(View, frozen=True, kw_only=True):
    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class DownwardFile(View, frozen=True, kw_only=True):
    path: str = ""
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardVolume(View, frozen=True, kw_only=True):
    items: tuple[DownwardFile, ...] = ()
    default_mode: int = 0o644


class HostPathVolume(View, frozen=True, kw_only=True):
    path: str = ""
    type: str = ""


class Volume(View, frozen=True, kw_only=True):
    """One source is set; a source this view does not know leaves all None."""

    name: str = ""
    empty_dir: EmptyDirVolume | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    downward: DownwardVolume | None = msgspec.field(name="downwardAPI", default=None)
    host_path: HostPathVolume | None = None


class NodeSelectorRequirement(View, frozen=True, kw_only=True):
    key: str = ""
    operator: str = ""
    """In, NotIn, Exists, DoesNotExist, Gt or Lt."""
    values: tuple[str, ...] = ()


class NodeSelectorTerm(View, frozen=True, kw_only=True):
    """All expressions and fields must hold; an empty term matches nothing."""

    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()


class NodeSelector(View, frozen=True, kw_only=True):
    """One of the terms must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class PreferredSchedulingTerm(View, frozen=True, kw_only=True):
    weight: int = 0
    preference: NodeSelectorTerm = NodeSelectorTerm()


class NodeAffinity(View, frozen=True, kw_only=True):
    required: NodeSelector | None = msgspec.field(name="requiredDuringSchedulingIgnoredDuringExecution", default=None)
    preferred: tuple[PreferredSchedulingTerm, ...] = msgspec.field(
        name="preferredDuringSchedulingIgnoredDuringExecution", default=()
    )


class PodAffinityTerm(View, frozen=True, kw_only=True):
    label_selector: LabelSelector | None = None
    namespaces: tuple[str, ...] = ()
    topology_key: str = ""


class PodAffinity(View, frozen=True, kw_only=True):
    """Pod affinity or anti-affinity: the required terms only."""

    required: tuple[PodAffinityTerm, ...] = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=()
    )


class Affinity(View, frozen=True, kw_only=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class Toleration(View, frozen=True, kw_only=True):
    key: str = ""
    """"" with operator Exists tolerates every taint."""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    """"" means every effect."""
    toleration_seconds: int | None = None


class HostAlias(View, frozen=True, kw_only=True):
    ip: str = ""
    hostnames: tuple[str, ...] = ()


class PodDnsOption(View, frozen=True, kw_only=True):
    name: str = ""
    value: str = ""


class PodDnsConfig(View, frozen=True, kw_only=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDnsOption, ...] = ()


class ReadinessGate(View, frozen=True, kw_only=True):
    condition_type: str = ""


class PodSpec(View, frozen=True, kw_only=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: PodDnsConfig = PodDnsConfig()
    node_selector: Mapping[str, str] = {}
    node_name: str = ""
    """"" until the scheduler binds the pod."""
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    host_network: bool = False
    security_context: PodSecurityContext = PodSecurityContext()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    hostname: str = ""
    subdomain: str = ""
    affinity: Affinity = Affinity()
    scheduler_name: str = "default-scheduler"
    tolerations: tuple[Toleration, ...] = ()
    host_aliases: tuple[HostAlias, ...] = ()
    priority_class_name: str = ""
    priority: int = 0
    readiness_gates: tuple[ReadinessGate, ...] = ()
    enable_service_links: bool = True
    overhead: Mapping[str, Quantity] = {}


class ContainerStateWaiting(View, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class ContainerStateRunning(View, frozen=True, kw_only=True):
    started_at: str = ""


class ContainerStateTerminated(View, frozen=True, kw_only=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str = ""
    finished_at: str = ""
    container_id: str = msgspec.field(name="containerID", default="")


class ContainerState(View, frozen=True, kw_only=True):
    """At most one is set; none means waiting."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(View, frozen=True, kw_only=True):
    name: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(name="imageID", default="")
    container_id: str = msgspec.field(name="containerID", default="")


class PodIp(View, frozen=True, kw_only=True):
    ip: str = ""


class PodStatus(View, frozen=True, kw_only=True):
    phase: str = "Pending"
    """Pending, Running, Succeeded, Failed or Unknown."""
    conditions: tuple[Condition, ...] = ()
    message: str = ""
    reason: str = ""
    nominated_node_name: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIp, ...] = msgspec.field(name="podIPs", default=())
    start_time: str = ""
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    qos_class: str = ""
    observed_generation: int = 0


class PodTemplateSpec(View, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


class Pod(ObjectView, frozen=True, kw_only=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_ready(self) -> bool:
        """The Ready condition is True."""
        return any(c.type == "Ready" and c.is_true for c in self.status.conditions)

    @property
    def is_finished(self) -> bool:
        """Every container has ended for good: phase Succeeded or Failed."""
        return self.status.phase in ("Succeeded", "Failed")
