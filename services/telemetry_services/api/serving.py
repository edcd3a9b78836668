"""The API of one process, put together: the feed, the fleet, the app, and QueryService over gRPC."""

from collections.abc import Callable

import grpc
from fastapi import FastAPI

from telemetry_broker import Broker
from telemetry_broker.v1 import query_pb2_grpc
from telemetry_services.api.access import Access
from telemetry_services.api.app import Parts, build_app
from telemetry_services.api.live.feed import Connect, Feed
from telemetry_services.api.live.fleet import Fleet
from telemetry_services.api.live.frames import Frames
from telemetry_services.api.live.streams import Live
from telemetry_services.api.live.viewers import Room
from telemetry_services.api.pipeline import Pipeline
from telemetry_services.api.publishing import Publisher
from telemetry_services.api.queries import Queries
from telemetry_services.api.servicer import QueryServicer
from telemetry_services.api.session import OneTimeTokens
from telemetry_services.config.models import RestSettings
from telemetry_services.security import Guard
from telemetry_services.security.api_keys import make_key_ring
from telemetry_services.serving.http_server import Health
from telemetry_services.store import Store


class Api:
    """The API. Made on the event loop that serves it.

    Attributes:
        app: the ASGI app.
        made_key: the API key that was made here; None: keys were given.
        tokens: for links that log the page in.

    Args:
        connect: opens the broker for the feed.
        broker: gives the connection that what administrators do goes over.
        pause: see `Pipeline`.
    """

    def __init__(
        self,
        settings: RestSettings,
        guard: Guard,
        store: Store,
        publisher: Publisher,
        health: Health,
        *,
        connect: Connect,
        broker: Callable[[], Broker],
        pause: Callable[[bool], None] | None = None,
    ) -> None:
        key_ring, self.made_key = make_key_ring(settings, guard)
        self.tokens = OneTimeTokens()
        fleet, self._room = Fleet(), Room()
        self._feed = Feed(connect, settings.msg_queue_topic, fleet, store)
        access = Access(
            key_ring,
            guard,
            rate_limit=settings.api_rate_limit,
            refused_limit=settings.api_refused_limit,
            service=settings.service,
        )
        self.queries = Queries(fleet, store, "api")
        self.live = Live(self._feed, fleet, self._room)
        self.access = access
        parts = Parts(
            fleet=fleet,
            frames=Frames(fleet, self._room),
            live=self.live,
            queries=self.queries,
            pipeline=Pipeline(broker, pause),
            publisher=publisher,
            access=access,
            tokens=self.tokens,
            health=health,
            cors_origins=tuple(filter(None, settings.cors_origins.split(","))),
        )
        self.app: FastAPI = build_app(parts, service="api")

    def serve_queries(self, server: grpc.aio.Server) -> None:
        """Adds QueryService."""
        query_pb2_grpc.add_QueryServiceServicer_to_server(QueryServicer(self.queries, self.live, self.access), server)

    def start(self) -> None:
        """Begins to read the topic."""
        self._feed.start()

    def end_streams(self) -> None:
        """Ends the streams of all viewers, so that the server can stop."""
        self._room.close()

    async def stop(self) -> None:
        """Reads no more."""
        self.end_streams()
        await self._feed.stop()
