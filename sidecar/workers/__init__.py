"""Several processes as one proxy: `python -m sidecar --concurrency N`.

The keeper (`keeper`) is the process that was started. It has no loop, no thread and no gRPC, so it can fork at any time: first the
control process, then N workers, and a worker again when one ends. Each worker (`worker`) is a data plane with its own loop, connections and
span export; they share listeners with SO_REUSEPORT. The control process (`control`) has the stream to the control plane and the own ports.
It holds one socket pair per worker (`link`, `messages`) and makes N processes look like one: a configuration is prepared by all before
any puts it in force (`group`), metrics are merged (`merge`), an admin page is one page (`rows`).

Does not belong here: anything a request passes through.
"""
