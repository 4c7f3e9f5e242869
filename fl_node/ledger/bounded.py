"""HTTP answers of bounded size: an endpoint may send without end."""

from __future__ import annotations

import io
import time
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter

#: 2,000 logs with as many parents as there can be take 40 MB.
MOST_ANSWER_BYTES: Final = 64 << 20
#: For one answer, however slowly it comes.
MOST_ANSWER_S: Final = 300.0
_CHUNK: Final = 1 << 16


class AnswerTooLarge(requests.RequestException):
    """More bytes than an answer may have."""


class BoundedAdapter(HTTPAdapter):
    """Reads each answer whole, up to a limit."""

    def send(self, request: requests.PreparedRequest, *given: Any, **named: Any) -> requests.Response:
        """As :meth:`requests.adapters.HTTPAdapter.send`.

        Raises:
            AnswerTooLarge: as it says.
            requests.Timeout: it does not come to its end.
        """
        named["stream"] = True
        response = super().send(request, *given, **named)
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
