"""Peers: other embedded queues, at the same work as `benchmarks/broker.py`, in the same run."""
