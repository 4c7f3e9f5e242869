"""HTTP answers of bounded size, from the URL that was given: an endpoint may send without end, or elsewhere."""

from __future__ import annotations

import io
import time
from typing import Any, Final
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter

#: 2,000 logs with as many parents as there can be take 40 MB.
MOST_ANSWER_BYTES: Final = 64 << 20
#: For one answer, however slowly it comes.
MOST_ANSWER_S: Final = 300.0
_CHUNK: Final = 1 << 16


class AnswerTooLarge(requests.RequestException):
    """More bytes than an answer may have."""


class Redirected(requests.RequestException):
    """The endpoint sends elsewhere. Nobody chose that place, and requests may hold keys, so nobody goes there."""

    def __init__(self, location: str, response: requests.Response) -> None:
        super().__init__("a redirect", response=response)
        self.location = location


class BoundedAdapter(HTTPAdapter):
    """Reads each answer whole, up to a limit, and follows no redirect."""

    def send(self, request: requests.PreparedRequest, *given: Any, **named: Any) -> requests.Response:
        """As :meth:`requests.adapters.HTTPAdapter.send`.

        Raises:
            AnswerTooLarge, Redirected: as they say.
            requests.Timeout: it does not come to its end.
        """
        named["stream"] = True
        response = super().send(request, *given, **named)
        if response.is_redirect:
            response.close()
            raise Redirected(urljoin(str(request.url), response.headers["Location"]), response)
        end = time.monotonic() + MOST_ANSWER_S
        body = bytearray()
        try:
            while part := response.raw.read1(_CHUNK, decode_content=True):
                body += part
                if len(body) > MOST_ANSWER_BYTES:
                    raise AnswerTooLarge(f"got more than {MOST_ANSWER_BYTES} bytes", response=response)
                if time.monotonic() > end:
                    raise requests.ReadTimeout(f"the answer takes more than {MOST_ANSWER_S:g} s", response=response)
        except BaseException as cause:
            response.close()
            if isinstance(cause, OSError | requests.RequestException) or not isinstance(cause, Exception):
                raise
            raise requests.ConnectionError(cause, request=request) from cause  # of urllib3, which has its own
        response.raw = io.BytesIO(body)
        return response
