"""A process that publishes one update and is killed (SIGKILL) the moment it is about to make a given request.

Arguments: JSON with url, deployment, key, state, method (empty: live until told), update number.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from worlds import QUICK, SPEC, an_update

from fl_node import keys
from fl_node.ledger.rpc import RpcLedger
from fl_node.ledger.transport import Rpc
from fl_node.spec import Deployment


class DoomedRpc(Rpc):
    doom = ""

    def call(self, method: str, *params: Any) -> Any:
        if method == self.doom:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().call(method, *params)


def main() -> None:
    told = json.loads(sys.argv[1])
    rpc = DoomedRpc(told["url"])
    signer = keys.from_private_key(told["key"])
    ledger = RpcLedger(Deployment(**told["deployment"]), SPEC, signer, Path(told["state"]), rpc, QUICK)
    print("holding", flush=True)
    if not told["method"]:
        sys.stdin.read()
        return
    rpc.doom = told["method"]
    ledger.publish(an_update(ledger.head(), 1, 1), ())


if __name__ == "__main__":
    main()
