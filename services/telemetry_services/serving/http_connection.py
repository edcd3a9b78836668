"""One HTTP connection: uvicorn's, with a bound on the time that a request's head may take."""

import asyncio
import ssl
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

CLIENT_CERTIFICATE: Final = "client_certificate"
"""Key of a request's state: whether its client has shown a certificate that the port's TLS trusts."""

HEAD_SECONDS: Final = 10.0


class HttpConnection(H11Protocol):
    """Closes a connection whose client has begun to send a request, or has connected, and goes on too slowly."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Notes whether the client has a certificate."""
        super().connection_made(transport)
        encrypted: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        has_certificate = encrypted is not None and bool(encrypted.getpeercert())
        self.app_state: dict[str, Any] = {**self.app_state, CLIENT_CERTIFICATE: has_certificate}
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """The clock runs from the first byte of a head to its last."""
        super().data_received(data)
        if self._is_answering():
            self._disarm()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._disarm()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request, which uvicorn's types leave out
        return cycle is not None and not cycle.response_complete

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _disarm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
