"""JSON-RPC over web3's HTTP provider: persistent connection, batches, and errors of this package only.

web3 carries the requests; its middleware and formatters are left out, because every answer is decoded once, at the
edge, into typed records.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast
from urllib.parse import SplitResult, urlsplit, urlunsplit

from fl_node.errors import ChainUnavailable, LedgerError
from fl_node.recursion import limit_kept

if TYPE_CHECKING:
    import requests
    from web3.types import RPCEndpoint

T = TypeVar("T")
Request: TypeAlias = tuple[str, list[Any]]

REQUEST_TIMEOUT_S: Final = 30.0
_TOO_MANY_REQUESTS: Final = 429
_QUANTITY: Final = re.compile("0x[0-9a-fA-F]{1,64}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class RpcError(LedgerError):
    """The endpoint answered with a JSON-RPC error. Decoded further up; ``data`` may hold a contract error."""

    def __init__(self, message: str, code: int = 0, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def place_of(url: str) -> str:
    """``scheme://host:port`` of a URL: what may be shown. Keys are found in user, path and query."""
    parts = _split(url)
    if not parts.netloc:
        return re.split("[/?#]", url)[0].rpartition("@")[2][:100]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def without_credentials(url: str) -> str:
    """An RPC URL as it may go into a file for everybody: without user, password, query and fragment. A key that is
    part of the path cannot be told from a path. Empty for what is no URL."""
    parts = _split(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _split(url: str) -> SplitResult:
    """The parts of a URL; none of what cannot be one, such as ``http://[::1``."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _has_port(parts: SplitResult) -> bool:
    """Whether the port, where there is one, is a number that a port can have."""
    try:
        return parts.port != 0
    except ValueError:
        return False


class Rpc:
    """One JSON-RPC endpoint.

    Args:
        url: ``http://`` or ``https://``.
        timeout_s: for one request.

    ``place`` is the URL as messages tell it; ``requests_sent`` counts HTTP round trips since the start.

    Raises:
        LedgerError: another kind of URL.
    """

    def __init__(self, url: str, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        parts = _split(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
            raise LedgerError(f"got the RPC URL {place_of(url)!r}; expected http://HOST:PORT or https://...")
        import requests

        with limit_kept():
            from web3 import HTTPProvider

        from fl_node.ledger.bounded import BoundedAdapter
        from fl_node.ledger.loopback import LoopbackSession

        session = LoopbackSession() if parts.hostname in _LOOPBACK else requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, BoundedAdapter())
        self.url = url
        self.place = place_of(url)
        self.requests_sent = 0
        self._batches = True
        self._provider = HTTPProvider(
            url,
            request_kwargs={"timeout": timeout_s, "headers": {"Content-Type": "application/json"}},
            session=session,
            exception_retry_configuration=None,
        )

    def call(self, method: str, *params: Any) -> Any:
        """One request; its ``result``.

        Raises:
            ChainUnavailable: no connection, no answer in time, or an answer that is no JSON-RPC.
            RpcError: the endpoint refused.
        """
        return self._result(
            method, self._guarded(lambda: self._provider.make_request(cast("RPCEndpoint", method), list(params)))
        )

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Several requests in one round trip. Each answer is the ``result``, or the :class:`RpcError` itself.

        Endpoints without batches are asked one by one.

        Raises:
            ChainUnavailable: as :meth:`call`.
        """
        if self._batches:
            answers = self._guarded(
                lambda: self._provider.make_batch_request(
                    [(cast("RPCEndpoint", name), given) for name, given in requests]
                )
            )
            if isinstance(answers, list) and len(answers) == len(requests):
                return [self._outcome(method, answer) for (method, _), answer in zip(requests, answers, strict=True)]
            self._batches = False
        found: list[Any] = []
        for method, params in requests:
            try:
                found.append(self.call(method, *params))
            except RpcError as refusal:
                found.append(refusal)
        return found

    def _guarded(self, send: Callable[[], Any]) -> Any:
        import requests

        from fl_node.ledger.bounded import AnswerTooLarge, Redirected

        self.requests_sent += 1
        try:
            return send()
        except AnswerTooLarge as cause:
            return {"error": {"message": f"{cause}; ask for less"}}  # as an endpoint refuses that minds its own limits
        except Redirected as cause:
            raise ChainUnavailable(
                f"the chain at {self.place} redirects to {place_of(cause.location)[:200]}; redirects are never "
                "followed, since requests may hold keys: if the chain has moved there, correct the RPC URL (--rpc)"
            ) from cause
        except requests.HTTPError as cause:
            refusal = _json_rpc_error(cause.response)
            if refusal is not None:
                return refusal
            raise self._unavailable(cause) from cause
        except (requests.RequestException, OSError, ValueError, TypeError, KeyError, RecursionError) as cause:
            raise self._unavailable(cause) from cause

    def _unavailable(self, cause: Exception) -> ChainUnavailable:
        reason = _in_short(self._without_secrets(str(cause))) or type(cause).__name__
        return ChainUnavailable(
            f"the chain at {self.place} does not answer: {reason[:300]}; start it, or correct the RPC URL"
        )

    def _without_secrets(self, text: str) -> str:
        """A cause's text without the parts of the URL that it may quote: a provider's key is in any of them."""
        text = re.sub(r"(?<=\burl: )\S+", self.place, text)
        parts = urlsplit(self.url)
        whole = f"{parts.path}?{parts.query}"
        for secret in (self.url, whole, parts.path, parts.query, parts.username, parts.password):
            if secret and len(secret) > 3:
                text = text.replace(secret, "...")
        return text

    def _outcome(self, method: str, answer: Any) -> Any:
        try:
            return self._result(method, answer)
        except RpcError as refusal:
            return refusal

    def _result(self, method: str, answer: Any) -> Any:
        if not isinstance(answer, dict):
            raise ChainUnavailable(f"{self.place} answered {method} with no JSON-RPC object: {str(answer)[:200]}")
        error = answer.get("error")
        if error:
            if not isinstance(error, dict):
                raise RpcError(f"{method}: {error}")
            message, code = str(error.get("message", error)), error.get("code", 0)
            raise RpcError(f"{method}: {message[:500]}", code if isinstance(code, int) else 0, error.get("data"))
        if "result" not in answer:
            raise ChainUnavailable(f"{self.place} answered {method} without a result: {str(answer)[:200]}")
        return answer["result"]


def _json_rpc_error(response: requests.Response | None) -> dict[str, Any] | None:
    """The JSON-RPC error that some providers send with an HTTP status of 400: an answer, not an outage."""
    if response is None or response.status_code == _TOO_MANY_REQUESTS:
        return None
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and isinstance(answer.get("error"), dict) else None


def backoff(first_s: float = 0.2, most_s: float = 10.0) -> Iterator[float]:
    """Seconds to wait before each further try: doubling up to a limit, for ever."""
    return (min(most_s, first_s * 2**exponent) for exponent in itertools.count())


def patiently(
    work: Callable[[], T],
    deadline_s: float,
    *,
    on_wait: Callable[[ChainUnavailable, float], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Do ``work``, again and again while the chain does not answer, for at most ``deadline_s`` seconds.

    ``on_wait(error, seconds)`` is told before each wait; what it or ``sleep`` raises ends the waiting.

    Raises:
        ChainUnavailable: the last one, when the time is over.
    """
    end = time.monotonic() + deadline_s
    for wait_s in backoff():
        try:
            return work()
        except ChainUnavailable as unavailable:
            left = end - time.monotonic()
            if left <= 0:
                raise
            pause = min(wait_s, left)
            if on_wait is not None:
                on_wait(unavailable, pause)
            sleep(pause)
    raise AssertionError("unreachable: backoff never ends")


def quantity(value: object) -> int:
    """A JSON-RPC quantity (``"0x1f"``) as an integer, from 0 to 256 bits.

    Raises:
        ChainUnavailable: not a quantity.
    """
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise ChainUnavailable(f"got {str(value)[:100]!r} from the endpoint; expected a hexadecimal number of 256 bits")


def raw_bytes(value: object) -> bytes:
    """JSON-RPC data (``"0x00ff"``) as bytes.

    Raises:
        ChainUnavailable: not data.
    """
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise ChainUnavailable(f"got {str(value)[:100]!r} from the endpoint; expected hexadecimal data")


def _in_short(text: str) -> str:
    """The system's own words for a failure, which libraries wrap several times."""
    found = re.search(r"\[Errno -?[0-9]+\] ([^\"')]+)", text)
    return found[1].strip() if found else re.sub(r"HTTPS?ConnectionPool\(.*?\): ", "", text)
