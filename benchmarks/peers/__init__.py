"""Peers: other queues, embedded ones and servers, at the same work as `benchmarks/broker.py`, in the same run."""
