"""Who can read what in real processes on a real chain, and what strangers' encrypted bytes do to a peer: nothing but an
objection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyrage  # type: ignore[import-untyped]
import pytest
import zstandard
from consortium import Consortium, found

from fl_node import keys
from fl_node.chains import FUNDERS, DevChain
from fl_node.content.cid import Cid
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.content.names import cid_of_update
from fl_node.decoding import Decoder
from fl_node.errors import Unreadable
from fl_node.key_keeping import GivenKeys
from fl_node.merging import weights
from fl_node.prefix import Prefix
from fl_node.readers import readers_at
from fl_node.records import ZERO32, ZSTD, Flag, Reason, Role, Update, UpdateObjected, UpdateRef
from fl_node.sealing import age
from fl_node.sealing.age import Identity

pytestmark = pytest.mark.xdist_group("node-private")


@pytest.fixture(scope="module")
def chain() -> Iterator[DevChain]:
    with DevChain.start("anvil") as chain:
        yield chain


def decoder(made: Consortium, opener: Any) -> Decoder:
    genesis = weights.decode((made.folder / "federation.genesis.safetensors").read_bytes()).tensors
    schema = weights.schema_of(genesis)
    return Decoder(
        made.federation.spec, schema, lambda: genesis, lambda entry: made.read(cid_of_update(entry.update)), opener
    )


def test_outsiders_the_chain_operator_and_retired_peers_read_nothing_and_an_auditor_does(
    chain: DevChain, tmp_path: Path
) -> None:
    made = found(tmp_path, chain, 3, rounds={"planned": 3, "mode": "sync", "deadline_s": 5.0, "linger_s": 10.0},
                 privacy={"key_wait_s": 20.0})  # fmt: skip
    auditor = keys.from_private_key(FUNDERS[5][1])
    owner = made.ledger(made.owner)
    owner.admit(auditor.address, "auditor", Role.READ)
    held = Identity.generate()
    reading = made.ledger(auditor)
    reading.announce(1, held.public, ZERO32, "")
    reading.close()
    running = [made.run(peer) for peer in (1, 2, 3)]
    for run in running:
        run.until(lambda run=run: run.events("recorded"))  # type: ignore[misc]
    running[2].kill()
    owner.retire(owner.peer(3).account, "left", owner.head().size)
    owner.close()
    for run in running[:2]:
        assert run.wait(120) == 0, run.stderr
    prefix = Prefix(made.entries())
    everything = [entry for peer in (1, 2, 3) for entry in prefix.updates(peer)]
    retired_at = prefix.peer(3).retirement
    assert retired_at is not None
    after = [entry for entry in everything if entry.update.sealed_at > retired_at.index]
    before = [entry for entry in everything if entry.update.sealed_at <= retired_at.index]
    assert len(before) >= 3 and len(after) >= 4
    owner_key = Identity.of(bytes(made.owner.derive(b"fl-node vault 1")))
    for entry in everything:
        data = made.read(cid_of_update(entry.update))
        assert entry.update.flags & Flag.ENCRYPTED and b"linear" not in data
        # Whoever runs the chain, or deployed the contract, has everything but a key.
        for nobody in (None, GivenKeys([Identity.generate(), owner_key])):
            with pytest.raises(Unreadable):
                decoder(made, nobody).tensors(entry, prefix)
        decoder(made, GivenKeys([held])).tensors(entry, prefix)
        decoder(made, made.opener(1)).tensors(entry, prefix)
    for entry in before:
        decoder(made, made.opener(3)).tensors(entry, prefix)
    for entry in after:
        with pytest.raises(Unreadable):
            decoder(made, made.opener(3)).tensors(entry, prefix)
    # What is public tells nothing of the weights: neither the log nor a report holds a digest of the bare tensors of a
    # trained update.
    bare = {
        weights.digest(decoder(made, made.opener(1)).tensors(entry, prefix)) for entry in everything if not entry.final
    }
    raw = b"".join(entry.data for entry in made.entries())
    reports = b"".join(made.read(Cid("raw", entry.update.report)) for entry in everything)
    bases = {entry.update.base for entry in everything}
    assert not any(digest in raw or digest.hex().encode() in reports for digest in bare - bases)
    made.replay().check([1, 2])


def _bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(bytes(size))


def test_hostile_encrypted_updates_are_objected_to(chain: DevChain, tmp_path: Path) -> None:
    kinds = [
        "truncated",
        "altered",
        "ten thousand recipients",
        "no age file",
        "inflates",
        "inflates under zstd",
        "other weights",
        "not for peer 1",
    ]
    made = found(tmp_path, chain, 2 + len(kinds), rounds={"linger_s": 0.0, "planned": 1})
    made.announce_keys()
    good = weights.decode((tmp_path / "federation.genesis.safetensors").read_bytes()).tensors
    other = {name: array + np.float32(1) for name, array in good.items()}
    readers = readers_at(Prefix(made.entries())).recipients
    plain = [bytes(part) for part in weights.encode(other)]
    store = MemoryStore()
    crowd = [pyrage.x25519.Identity.generate().to_public() for _ in range(10_000)]
    sealed = bytes(age.seal(plain, readers))
    altered = bytearray(sealed)
    altered[-1] ^= 1
    made_of = {
        "truncated": sealed[:-200],
        "altered": bytes(altered),
        "ten thousand recipients": pyrage.encrypt(b"".join(plain), crowd),
        "no age file": b"".join(plain),
        "inflates": bytes(age.seal([b"".join(plain) + bytes(3_000_000)], readers)),
        "inflates under zstd": bytes(age.seal([_bomb(1000 * len(b"".join(plain)))], readers)),
        "other weights": sealed,
        "not for peer 1": bytes(age.seal(plain, readers[1:])),
    }
    expected = dict.fromkeys(kinds, Reason.MALFORMED) | {
        "other weights": Reason.DIGEST_MISMATCH,
        "not for peer 1": Reason.UNAVAILABLE,
    }
    with Gateway(store) as gateway:
        for peer, kind in enumerate(kinds, start=3):
            ledger = made.peer_ledger(peer)
            said = Prefix(made.entries()).peer(peer).announcement
            assert said is not None
            ledger.announce(2, said.recipient_key, ZERO32, gateway.endpoint)
            content = store.add(made_of[kind])
            head, identity = ledger.head(), ledger.identity
            tensors = good if kind == "other weights" else other
            commitment = weights.commitment(identity.chain_id, identity.address, peer, 1, weights.digest(tensors))
            flags = Flag.ENCRYPTED | (Flag.DAG_PB if content.codec == "dag-pb" else Flag(0))
            update = Update(
                *(content.digest, flags, commitment, ZERO32, ZERO32, head.size, head.root, 1, 1, 10, 0, 9, 9, 0),
                encoding=ZSTD if "zstd" in kind else 0,
                sealed_at=head.size,
            )
            ledger.publish(update, ())
            ledger.close()
        # Peer 2 announces peer 1's key as its own: that gives it nothing, and takes nothing from peer 1.
        one = Prefix(made.entries()).peer(1).announcement
        assert one is not None
        thief = made.peer_ledger(2)
        thief.announce(2, one.recipient_key, ZERO32, "")
        thief.close()
        run = made.run(1)
        assert run.wait(120) == 0, run.stderr
    words = {
        entry.body.target.peer: entry.body.reason
        for entry in made.entries()
        if isinstance(entry.body, UpdateObjected) and entry.body.peer == 1
    }
    assert words == {peer: expected[kind] for peer, kind in enumerate(kinds, start=3)}
    assert "Traceback" not in run.stderr and "panicked" not in run.stderr
    prefix = Prefix(made.entries())
    own = prefix.update(UpdateRef(1, 2))
    assert [parent.peer for parent in own.parents] == [1]
    # The one key of two members is one recipient, and only who holds it reads.
    header = age.read_header(made.read(cid_of_update(own.update)))
    assert header.kinds.count("X25519") == len(readers_at(prefix).recipients) == 1 + len(kinds)
    decoder(made, made.opener(1)).tensors(own, prefix)
    with pytest.raises(Unreadable):
        decoder(made, made.opener(2)).tensors(own, prefix)
