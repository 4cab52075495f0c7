"""What the destinations that are reached by HTTP share: a connection with a time limit, and how its absence is said."""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Self
from urllib.parse import urlsplit

from dicomnode.domain.errors import UnreachableError
from dicomnode.domain.results import ResultObject

_CONNECT_S = 10.0
LONGEST_ANSWER_BYTES = 16 << 20


class HttpService:
    """One service, named by its root address; `what` is how people call it."""

    what = "the service"

    def __init__(self, url: str, longest_send_s: float, tls: ssl.SSLContext | None = None) -> None:
        """tls: for https; None: the machine's own certificates."""
        self._at = urlsplit(url.rstrip("/"))
        self._longest_send_s = longest_send_s
        self._tls = tls

    @contextmanager
    def connect(self, first: ResultObject) -> Iterator[Self]:  # noqa: ARG002
        """The service, if somebody accepts connections there. Raises UnreachableError."""
        with closing(self._connection()) as connection:
            try:
                connection.connect()
            except OSError as error:
                raise self._unreachable(error) from None
        yield self

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._at.hostname or "", self._at.port
        if self._at.scheme == "https":
            context = self._tls or ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=_CONNECT_S, context=context)
        return http.client.HTTPConnection(host, port, timeout=_CONNECT_S)

    def _unreachable(self, error: Exception) -> UnreachableError:
        said = getattr(error, "strerror", None) or type(error).__name__
        return UnreachableError(
            f"{self.what} at {self._at.hostname} does not answer: {said}", "check its url, and that it runs"
        )
