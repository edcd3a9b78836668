r"""The broker as a process: BrokerService over gRPC, and an HTTP side port.

When it takes calls it says so in one line on standard error, the addresses in it being the ones that were bound:

    2026-01-02T03:04:05.678Z INFO broker: Starting broker grpc=127.0.0.1:9090 http=127.0.0.1:8080 data=/data ...

so that `--port 0 --grpc-port 0` can be used by whoever starts it: `Starting broker grpc=(\S+) http=(\S+)`.
"""
