r"""The proxy as a process: several brokers behind one BrokerService, and behind the older system's endpoints.

Which broker a partition's records go to, what becomes of them while it is away, and how consuming from all of them
becomes one stream is the core's to know (`_core.Cluster`); here are its settings, its HTTP and what it tells.

When it takes calls it says so as the broker does: `Starting proxy grpc=(\S+) http=(\S+)`.
"""
