"""Deeply nested JSON of a stranger is an error, not the end of the process."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

PROGRAM = """
import sys
from fl_node.errors import ChainUnavailable
from fl_node.keys import from_private_key
from fl_node.ledger.transport import Rpc

from_private_key(bytes(31) + b"1")
try:
    Rpc(sys.argv[1]).call("eth_chainId")
except ChainUnavailable as refusal:
    print(f"refused: {refusal}")
print("limit", sys.getrecursionlimit())
"""


class Nested(BaseHTTPRequestHandler):
    """Answers everything with a hundred thousand brackets."""

    def do_POST(self) -> None:
        body = b"[" * 100_000 + b"]" * 100_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_an_endpoint_that_answers_with_brackets_only() -> None:
    with HTTPServer(("127.0.0.1", 0), Nested) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            run = subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, timeout=60)
        finally:
            server.shutdown()
            thread.join()
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("refused: ") and run.stdout.endswith("limit 1000\n")
