"""The demo's web application: `python -m mesh.cli.demo.web`.

It says which pod and channel answered, can be told to fail, and continues a trace it is handed.

Environment: PORT (8080), CHANNEL, COLOR, POD_NAME, VERSION, OTEL_EXPORTER_OTLP_ENDPOINT (empty: no spans).

- `GET /` and any other path: 200 with one line, and the headers `x-pod`, `x-channel`, `x-version`.
- `POST /-/switch?status=500`: from now on answer `GET /` with that status (200 restores).
- `GET /-/healthz`: 200 while the process serves, whatever the switch says.
"""

import asyncio
import os
import threading
import time

from mesh.cli.demo.exchange import Request, Response, serve
from mesh.cli.demo.spans import Parent, SpanSink, parse_traceparent


class WebApplication:
    """The state of one pod: who it is and whether it is told to fail."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._pod = environment.get("POD_NAME", "local")
        self._channel = environment.get("CHANNEL") or environment.get("COLOR", "none")
        self._version = environment.get("VERSION", "unknown")
        self._status = 200
        self._sink = SpanSink(
            environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""), {"service.name": f"webserver-{self._channel}"}
        )
        self._sink_lock = threading.Lock()

    async def handle(self, request: Request) -> Response:
        """One request to one response."""
        if request.path == "/-/healthz":
            return Response(body=b"ok\n")
        if request.path == "/-/switch":
            return self._switch(request)
        started_ns = time.time_ns()
        response = self._answer()
        parent = parse_traceparent(request.headers.get("traceparent", ""))
        if parent is not None and parent.is_sampled:
            name = f"{request.method} {request.path}"
            attributes: dict[str, str | int] = {"http.response.status_code": response.status, "meshwork.pod": self._pod}
            # The exporter's libraries take a while to load; the first sampled request must not wait for them.
            asyncio.get_running_loop().run_in_executor(None, self._record, name, parent, started_ns, attributes)
        return response

    def _answer(self) -> Response:
        identity = {"x-pod": self._pod, "x-channel": self._channel, "x-version": self._version}
        if self._status == 200:
            return Response(
                body=f"hello from {self._pod} ({self._channel}, {self._version})\n".encode(), headers=identity
            )
        return Response(status=self._status, body=f"{self._pod} was told to fail\n".encode(), headers=identity)

    def _switch(self, request: Request) -> Response:
        status = request.query.get("status", "")
        if request.method != "POST" or not status.isdigit() or not 200 <= int(status) <= 599:
            return Response(status=400, body=b"want POST /-/switch?status=200..599\n")
        self._status = int(status)
        print(f"answering {self._status} from now on", flush=True)
        return Response.of_json({"pod": self._pod, "status": self._status})

    def _record(self, name: str, parent: Parent, started_ns: int, attributes: dict[str, str | int]) -> None:
        with self._sink_lock:
            self._sink.record(name, parent, started_ns, time.time_ns(), attributes)


def main() -> None:
    """Serve until SIGTERM."""
    application = WebApplication(dict(os.environ))
    asyncio.run(serve(application.handle, int(os.environ.get("PORT", "8080"))))


if __name__ == "__main__":
    main()
