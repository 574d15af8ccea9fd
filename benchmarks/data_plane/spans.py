"""The collector behind Meshwork and Envoy: takes spans over OTLP, counts them by service and throws them away."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class SpanSink(grpc.GenericRpcHandler):
    """Listens while it is entered. Runs in threads of this process, which is not on the proxies' core."""

    def __init__(self) -> None:
        self.spans: Counter[str] = Counter()
        """Spans so far, by service name."""
        self._server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[self])
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> "SpanSink":
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The one method there is; None for others."""
        if handler_call_details.method != _METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
            response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
        )

    def _export(self, request: Any, context: grpc.ServicerContext) -> Any:
        for one in request.resource_spans:
            names = [item.value.string_value for item in one.resource.attributes if item.key == "service.name"]
            self.spans[names[0] if names else ""] += sum(len(scope.spans) for scope in one.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()
