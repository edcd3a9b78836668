"""What the broker's metrics show, read from the core when they are asked for."""

from collections import defaultdict
from collections.abc import Iterator

from telemetry_broker import _core
from telemetry_broker.errors import NotFoundError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.observability.metrics import PartitionMetrics


def read_partitions(core: _core.Broker) -> Iterator[PartitionMetrics]:
    """The state of each partition now; queued is what its slowest group has not acked, or all without a group."""
    lags: dict[str, dict[int, int]] = {}
    for topic, partition, start, end, size, appended, leased in core.metrics():
        if topic not in lags:
            lags[topic] = _lags(core, topic)
        queued = lags[topic].get(partition, end - start)
        yield PartitionMetrics(topic, partition, queued, size, appended, leased)


def _lags(core: _core.Broker, topic: str) -> dict[int, int]:
    worst: defaultdict[int, int] = defaultdict(int)
    try:
        groups = core.call("ListGroups", pb.ListGroupsRequest(topic=topic).SerializeToString())
        for group in pb.ListGroupsResponse.FromString(groups).groups:
            request = pb.DescribeGroupRequest(topic=topic, group=group.name).SerializeToString()
            for state in pb.DescribeGroupResponse.FromString(core.call("DescribeGroup", request)).partitions:
                worst[state.partition] = max(worst[state.partition], state.lag)
    except NotFoundError:
        return {}  # deleted meanwhile
    return dict(worst)
