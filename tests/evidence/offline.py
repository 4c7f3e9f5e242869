"""`fl-node` in a process that may not open a socket; the last line on stderr says what it loaded."""

from __future__ import annotations

import sys


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event.startswith("socket.") and event != "socket.gethostname":
        print(f"a socket: {event} {arguments}", file=sys.stderr)
        raise PermissionError(event)


sys.addaudithook(refuse)

from fl_node.__main__ import main  # noqa: E402

code = main(sys.argv[1:])
heavy = sorted({"torch", "web3", "sklearn"} & set(sys.modules))
print(f"loaded: {heavy}, numpy {sys.modules['numpy'].__version__}", file=sys.stderr)
sys.exit(code)
