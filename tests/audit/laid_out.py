"""A small federation laid out in a folder, so that any process can audit it; run as a program, it audits and may die.

    python laid_out.py FOLDER JOBS DIE_AFTER

kills itself, as ``kill -9`` does, when so many updates are replayed and kept.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from honest_worlds import means_over

from fl_node.audit.kept import Kept
from fl_node.audit.means import Means
from fl_node.audit.run import audit
from fl_node.content.blockstore import Blockstore
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.protocol import LedgerIdentity
from fl_node.spec import read_federation


def lay_out(folder: Path, peers: int = 4, rounds: int = 3) -> None:
    """Play the ``fedavg`` preset on digits; log, bytes and spec lie in the folder afterwards."""
    from fl_node.merging import weights
    from fl_node.simulation.batches import Batcher
    from fl_node.simulation.deal import Source, deal
    from fl_node.simulation.faults import Faults, cast
    from fl_node.simulation.federation import in_memory
    from fl_node.simulation.settings import Settings
    from fl_node.simulation.ticks import Ticks

    settings = Settings(preset="fedavg", peers=(peers,), rounds=rounds, epochs=1)
    federation = settings.federation(peers, 0)
    dealt = deal(Source.load(federation.spec.task, None), federation.spec.task, peers, "iid", 0, test_rows="own")
    world = in_memory(federation, dealt, cast(Faults(), peers, rounds, 0))
    for _ in Ticks(world, Batcher(federation.spec, dealt.splits, "auto", 1)).run():
        pass
    (folder / "spec.toml").write_bytes(federation.spec_bytes)
    with LedgerIndex(folder / "log.sqlite", world.owner) as index:
        index.sync()
    store = Blockstore(folder / "content")
    store.add(weights.encode(world.genesis), durable=False)
    for pin in world.store.pins():
        store.add(world.store.get(pin.cid, 1 << 30), durable=False)
    store.close()


def means_in(folder: Path) -> Means:
    """Means over what lies in the folder."""
    federation = read_federation(folder / "spec.toml")
    index = LedgerIndex(folder / "log.sqlite")
    entry = index.entry(0).body
    identity = LedgerIdentity(
        *(entry.chain_id, entry.ledger, 1, entry.spec_digest, entry.genesis_content, entry.genesis_weights),
        *(entry.genesis_flags, entry.min_interval_s),
    )
    return means_over(index, identity, federation, {1: Blockstore(folder / "content")})


def main() -> None:
    folder, jobs, die_after = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    means = means_in(folder)

    def tell(phase: str, done: int, total: int) -> None:
        if phase == "replay" and done == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    with Kept(folder / "results.sqlite", means.log, means.identity.spec_digest) as kept:
        audit(means, jobs=jobs, kept=kept, progress=tell)


if __name__ == "__main__":
    main()
