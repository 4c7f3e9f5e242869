"""An HTTP relay between a ledger and its chain that can lie, refuse, count, and be cut."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

# (method, params) -> an answer, {"result": ...} or an error object, or None to pass the request on.
Refuse = Callable[[str, list[Any]], dict[str, Any] | None]
# (method, params, result) -> result
Tamper = Callable[[str, list[Any], Any], Any]


class Relay:
    """Listens on 127.0.0.1; ``url`` stands in for the chain's. Counts methods in ``seen``."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.refuse: Refuse = lambda method, params: None
        self.tamper: Tamper = lambda method, params, result: result
        self.down = False
        self.batches = True
        self.error_status = 200
        self.seen: Counter[str] = Counter()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if relay.down:
                    self.send_error(503)
                    return
                answered = relay._answer(json.loads(body))
                answer = json.dumps(answered).encode()
                failed = isinstance(answered, dict) and "error" in answered
                self.send_response(relay.error_status if failed else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _answer(self, asked: Any) -> Any:
        if isinstance(asked, list):
            if not self.batches:
                return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batches are not supported"}}
            return [self._one(request) for request in asked]
        return self._one(asked)

    def _one(self, request: dict[str, Any]) -> dict[str, Any]:
        method, params = request["method"], request.get("params", [])
        self.seen[method] += 1
        error = self.refuse(method, params)
        if error is not None and "result" in error:
            return {"jsonrpc": "2.0", "id": request["id"], **error}
        if error is not None:
            return {"jsonrpc": "2.0", "id": request["id"], "error": error}
        raw = json.dumps(request).encode()
        posted = urllib.request.Request(self.target, raw, {"Content-Type": "application/json"})
        with urllib.request.urlopen(posted, timeout=30) as response:
            answer: dict[str, Any] = json.loads(response.read())
        if "result" in answer:
            answer["result"] = self.tamper(method, params, answer["result"])
        return answer

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
