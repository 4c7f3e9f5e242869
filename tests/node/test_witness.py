"""A peer as witness: what it signs, what it keeps, and what it makes of others that say something else."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from content.test_fetch import HOSTILE, stranger
from worlds import an_update, chain_world, dev_signer

from fl_node.chains import DevChain, call
from fl_node.content.fetch import Fetcher
from fl_node.content.gateway import Gateway
from fl_node.content.memory import MemoryStore
from fl_node.errors import ContentUnavailable
from fl_node.ledger import checkpoint
from fl_node.ledger.checkpoint import MAX_NOTE_BYTES, Checkpoint, SignedCheckpoint
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.memory import MemoryChain
from fl_node.ledger.note_folder import NoteFolder
from fl_node.ledger.protocol import Ledger
from fl_node.ledger.rpc import RpcLedger
from fl_node.log_routes import log_routes
from fl_node.progress import Event, OneAtATime
from fl_node.records import Member, Role
from fl_node.witness import Witness

SIGNERS = [dev_signer(number) for number in range(1, 5)]
OUTSIDER = dev_signer(9)
LOOPBACK = ("127.0.0.0/8",)


@dataclass
class Bench:
    """A chain in memory, an index that follows it, and the witness of peer 1. ``served``: others' checkpoints."""

    chain: MemoryChain
    index: LedgerIndex
    folder: NoteFolder
    served: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def ask(self, endpoint: str) -> bytes:
        if endpoint not in self.served:
            raise ContentUnavailable(f"{endpoint} has none")
        return self.served[endpoint]

    def witness(self, every: int = 4, ask: Callable[[str], bytes] | None = None, **more: float) -> Witness:
        return Witness(self.index, SIGNERS[0], self.folder, ask or self.ask, self.events.append, every=every, **more)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def ledger(self, peer: int) -> Ledger:
        return self.chain.ledger(SIGNERS[peer - 1].address)

    def play(self, rounds: int = 1, first: int = 1) -> None:
        for number in range(first, first + rounds):
            for peer in range(1, len(SIGNERS) + 1):
                ledger = self.ledger(peer)
                ledger.publish(an_update(ledger.head(), number, number), ())
        self.index.sync()

    def serves(self, peer: int, note: SignedCheckpoint | bytes) -> None:
        self.served[f"memory://{peer}"] = note if isinstance(note, bytes) else note.note


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    chain = MemoryChain([Member(signer.address, f"site-{n}") for n, signer in enumerate(SIGNERS, start=1)])
    with LedgerIndex(":memory:", chain.ledger()) as index:
        made = Bench(chain, index, NoteFolder(tmp_path / "checkpoints"))
        for peer in range(1, len(SIGNERS) + 1):
            made.ledger(peer).announce(1, bytes(32), bytes(32), f"memory://{peer}")
        index.sync()
        yield made


def signed_of(bench: Bench, peer: int, size: int | None = None, **changes: object) -> SignedCheckpoint:
    made = checkpoint.at(bench.index, size)
    return checkpoint.sign(replace(made, **changes), SIGNERS[peer - 1])  # type: ignore[arg-type]


# ---- signing


def test_it_signs_every_so_many_entries_at_the_end_of_a_block(bench: Bench) -> None:
    assert bench.index.size == 9
    witness = bench.witness(every=2)
    witness.look()
    witness.look()
    assert bench.folder.own_sizes() == [8]
    bench.play()  # 13 entries; what was passed over at once needs no checkpoint of its own
    witness.look()
    assert bench.folder.own_sizes() == [8, 12] and bench.kinds() == ["checkpoint", "checkpoint"]
    for size in (8, 12):
        own = bench.folder.own(size)
        assert own is not None and own.checkpoint == checkpoint.at(bench.index, size)
        assert own.signers == (SIGNERS[0].address,)


def test_a_block_of_many_entries_is_not_cut(bench: Bench) -> None:
    """Opening and admissions are one block of five entries: the contract never had the root of four."""
    bench.witness(every=4).look()
    assert bench.folder.own_sizes() == [8]
    assert checkpoint.whole_block(bench.index, 4) == 5


def test_a_young_log_is_not_signed(bench: Bench) -> None:
    bench.witness(every=16).look()
    assert bench.folder.own_sizes() == [] and bench.events == []


def test_it_goes_on_after_a_restart(bench: Bench) -> None:
    bench.witness().look()
    bench.play()
    bench.witness().look()
    assert bench.folder.own_sizes() == [8, 12]
    bench.witness().look()
    assert bench.folder.own_sizes() == [8, 12]


def test_a_rewritten_log_is_not_signed_but_told_once(bench: Bench) -> None:
    witness = bench.witness()
    witness.look()
    bench.chain.reorganise(3)
    bench.index.sync()
    for peer in (2, 3, 4):
        bench.ledger(peer).announce(1, bytes(32), bytes(32), f"memory://other-{peer}")
    bench.play()
    for _ in range(3):
        witness.look()
        bench.chain.mine()
        bench.index.sync()
    assert bench.folder.own_sizes() == [8]
    assert bench.kinds() == ["checkpoint", "alarm-inconsistent"]
    alarm = bench.events[-1]
    evidence = Path(str(alarm.detail["evidence"]))
    told = json.loads(evidence.read_text())
    assert "have the root" in told["trouble"] and checkpoint.parse(told["note"].encode()).checkpoint.size == 8
    assert bench.folder.incidents() == [(evidence, told)]


def test_a_log_shorter_than_signed_is_told(bench: Bench) -> None:
    bench.play()
    witness = bench.witness()
    witness.look()
    bench.chain.reorganise(6)
    bench.index.sync()
    witness.look()
    assert bench.kinds() == ["checkpoint", "alarm-inconsistent"] and "shorter than signed" in bench.events[-1].text


def test_a_reorganisation_beyond_what_was_signed_is_none_of_its_business(bench: Bench) -> None:
    witness = bench.witness()
    witness.look()
    bench.play()
    bench.chain.reorganise(4)
    bench.index.sync()
    bench.play()
    witness.look()
    assert bench.folder.own_sizes() == [8, 12] and bench.kinds() == ["checkpoint", "checkpoint"]


# ---- others


def test_it_keeps_the_latest_of_each_member(bench: Bench) -> None:
    witness = bench.witness(every=100, exchange_s=0.0)
    bench.serves(2, signed_of(bench, 2, 7))
    bench.serves(3, signed_of(bench, 3, 9))
    witness.look()
    assert {note.checkpoint.size for note in bench.folder.others().values()} == {7, 9}
    bench.serves(2, signed_of(bench, 2, 8))
    bench.serves(3, signed_of(bench, 3, 5))  # an older one does not take the place of the newer
    witness.look()
    kept = bench.folder.others()
    assert kept[SIGNERS[1].address].checkpoint.size == 8 and kept[SIGNERS[2].address].checkpoint.size == 9
    assert bench.events == []


def test_what_is_ahead_is_judged_when_the_log_is_as_long(bench: Bench) -> None:
    witness = bench.witness(every=100, exchange_s=0.0)
    fork = signed_of(bench, 3, size=9, root=bytes(32))
    bench.serves(3, checkpoint.sign(replace(fork.checkpoint, size=11), SIGNERS[2]))
    witness.look()
    assert bench.folder.others() == {} and bench.events == []
    bench.served.clear()
    bench.play()
    witness.look()
    assert bench.kinds() == ["alarm-equivocation"]
    ((_, conflict),) = bench.folder.conflicts()
    assert conflict.first.checkpoint == checkpoint.at(bench.index, 11)


@pytest.mark.parametrize("own_size", [True, False], ids=["of a size that it signed", "of another size"])
def test_another_log_is_proved_by_two_notes(bench: Bench, own_size: bool) -> None:
    bench.play()
    witness = bench.witness(exchange_s=0.0)
    witness.look()
    size = 12 if own_size else 10
    bench.serves(2, signed_of(bench, 2, size, root=b"\x13" * 32))
    for _ in range(3):
        witness.look()
    assert bench.kinds() == ["checkpoint", "alarm-equivocation"]
    ((path, conflict),) = bench.folder.conflicts()
    assert str(path) == bench.events[-1].detail["proof"]
    assert {*conflict.first.signers, *conflict.second.signers} == {SIGNERS[0].address, SIGNERS[1].address}
    assert checkpoint.conflicts(checkpoint.parse_all(path.read_bytes())) == [conflict]
    assert bench.folder.others() == {}
    bench.witness(exchange_s=0.0).look()
    assert bench.kinds()[2:] == ["alarm-equivocation"], "told again after a restart"
    assert len(bench.folder.conflicts()) == 1


def test_one_member_that_says_two_things_convicts_itself(bench: Bench) -> None:
    witness = bench.witness(every=100, exchange_s=0.0)
    bench.serves(2, signed_of(bench, 2, 9))
    witness.look()
    bench.serves(2, signed_of(bench, 2, 9, root=bytes(32)))
    witness.look()
    assert any(SIGNERS[1].address in conflict.equivocators for _, conflict in bench.folder.conflicts())


def test_others_that_contradict_each_other_ahead_of_the_log(bench: Bench) -> None:
    witness = bench.witness(every=100, exchange_s=0.0)
    far = replace(checkpoint.at(bench.index), size=1000)
    bench.serves(2, checkpoint.sign(far, SIGNERS[1]))
    bench.serves(3, checkpoint.sign(replace(far, root=bytes(32)), SIGNERS[2]))
    witness.look()
    assert bench.kinds() == ["alarm-equivocation"]


def test_another_spec_is_a_contradiction_too(bench: Bench) -> None:
    bench.serves(2, signed_of(bench, 2, 9, spec_digest=b"\x55" * 32))
    bench.witness(every=100).look()
    assert bench.kinds() == ["alarm-equivocation"] and "two specs" in bench.events[0].text


def test_no_member_can_fill_the_disk(bench: Bench) -> None:
    bench.play(10)
    witness = bench.witness(exchange_s=0.0)
    for number in range(40):
        bench.serves(2, signed_of(bench, 2, 10 + number % 20, root=bytes([number]) * 32))
        witness.look()
    files = [path.name for path in bench.folder.folder.iterdir()]
    assert len(files) == 1 + 8, files
    assert bench.kinds().count("alarm-equivocation") == 8


def test_strangers_notes_and_those_of_other_ledgers_count_for_nothing(bench: Bench) -> None:
    made = checkpoint.at(bench.index)
    bench.serves(2, checkpoint.sign(replace(made, root=bytes(32)), OUTSIDER))
    bench.serves(3, checkpoint.sign(replace(made, chain_id=1, root=bytes(32)), SIGNERS[2]))
    bench.witness(every=100).look()
    assert bench.events == [] and not bench.folder.folder.exists()


def test_a_note_that_somebody_else_signed_is_as_good(bench: Bench) -> None:
    """Who serves a note does not matter; and one signed by two counts for both."""
    both = checkpoint.cosigned([signed_of(bench, 3), signed_of(bench, 4)])
    bench.serves(2, both)
    bench.witness(every=100).look()
    assert bench.folder.others() == {SIGNERS[2].address: both, SIGNERS[3].address: both}


def test_garbage_is_told_once(bench: Bench) -> None:
    good = signed_of(bench, 2).note
    witness = bench.witness(every=100, exchange_s=0.0)
    for bad in (b"", b"\xff" * 1000, good[:-10], good.replace(b"9\n", b"8\n", 1), b"x" * MAX_NOTE_BYTES * 2):
        bench.serves(2, bad)
        bench.serves(3, signed_of(bench, 3))
        witness.look()
    assert bench.kinds() == ["checkpoint-refused"] and "peer 2" in bench.events[0].text
    assert list(bench.folder.others()) == [SIGNERS[2].address]


def test_while_its_own_log_is_in_doubt_it_signs_nothing_against_others(bench: Bench) -> None:
    bench.witness().look()
    bench.chain.reorganise(3)
    bench.index.sync()
    bench.play(2)
    bench.serves(2, signed_of(bench, 2, 7, root=bytes(32)))
    bench.witness(exchange_s=0.0).look()
    assert bench.folder.own_sizes() == [8] and bench.folder.conflicts() == []


# ---- the thread


def test_the_thread_signs_while_gateways_hang_and_closing_does_not_wait(bench: Bench) -> None:
    asked = threading.Event()

    def hang(endpoint: str) -> bytes:
        asked.set()
        time.sleep(30)
        return b""

    with bench.witness(ask=hang, period_s=0.01):
        assert asked.wait(10)
        assert bench.folder.own_sizes() == [8], "signed before anybody was asked"
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert not any(thread.name == "witness" and not thread.daemon for thread in threading.enumerate())


def test_what_goes_wrong_in_a_look_is_told_and_the_next_look_works(bench: Bench) -> None:
    trouble = [RuntimeError("boom")] * 3

    def fail(endpoint: str) -> bytes:
        if trouble:
            raise trouble.pop()
        return bench.ask(endpoint)

    bench.serves(2, signed_of(bench, 2))
    with bench.witness(every=100, ask=fail, period_s=0.01, exchange_s=0.0):
        until(lambda: bench.folder.others())
    assert [kind for kind in bench.kinds() if kind != "checkpoint"] == ["checkpoint-failed"]


def test_what_is_due_at_the_end_is_signed(bench: Bench) -> None:
    with bench.witness(period_s=60.0):
        pass
    assert bench.folder.own_sizes() == [8]


def test_a_full_disk_is_told_and_breaks_nothing(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with bench.witness(period_s=0.01):
        until(lambda: bench.events)
    assert set(bench.kinds()) == {"checkpoint-failed"} and "cannot write" in bench.events[0].text


def test_events_come_one_at_a_time_and_none_after_the_end() -> None:
    busy, told = threading.Lock(), []

    def emit(event: Event) -> None:
        assert busy.acquire(blocking=False), "two threads at once"
        time.sleep(0.001)
        told.append(event)
        busy.release()

    with OneAtATime(emit) as serial:
        threads = [threading.Thread(target=lambda: [serial(Event("x", "")) for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(told) == 80
    serial(Event("late", ""))
    assert len(told) == 80


def until(met: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- over HTTP


@pytest.mark.parametrize(
    "kind", ["endless headers", "a length of terabytes", "dripping body", "silent", "another protocol", "altered"]
)
def test_a_hostile_gateway_does_no_harm(bench: Bench, kind: str) -> None:
    with stranger(HOSTILE[kind][0]) as endpoint, Fetcher(LOOPBACK) as fetcher:
        bench.ledger(2).announce(2, bytes(32), bytes(32), endpoint)
        bench.index.sync()

        def ask(asked: str) -> bytes:
            if asked.startswith("memory"):
                return bench.ask(asked)
            return fetcher.document("/checkpoint", MAX_NOTE_BYTES, asked, timeout_s=0.5)

        bench.serves(3, signed_of(bench, 3))
        started = time.monotonic()
        bench.witness(ask=ask).look()
        assert time.monotonic() - started < 5
        assert list(bench.folder.others()) == [SIGNERS[2].address]
        assert "alarm-equivocation" not in bench.kinds()


@dataclass
class Site:
    """One peer's index, gateway and witness on a real chain."""

    index: LedgerIndex
    folder: NoteFolder
    gateway: Gateway
    witness: Witness
    events: list[Event]


@pytest.fixture
def lone_anvil() -> Iterator[DevChain]:
    with DevChain.start("anvil") as chain:
        yield chain


def test_two_peers_on_a_chain_that_its_operator_rewrites(lone_anvil: DevChain, tmp_path: Path) -> None:
    """Each follows it at another time, and so sees another log: both notice, and both have the proof."""
    world = chain_world(lone_anvil, (Role.ALL, Role.ALL))
    with Fetcher(LOOPBACK) as fetcher:
        sites = []
        for number, signer in enumerate(world.signers, start=1):
            index = LedgerIndex(":memory:", world.owner)
            folder = NoteFolder(tmp_path / str(number) / "checkpoints")
            gateway = Gateway(MemoryStore(), routes=log_routes(index, folder))
            events: list[Event] = []

            def ask(endpoint: str) -> bytes:
                return fetcher.document("/checkpoint", MAX_NOTE_BYTES, endpoint)

            witness = Witness(index, signer, folder, ask, events.append, every=8, exchange_s=0.0)
            sites.append(Site(index, folder, gateway, witness, events))
            world.members[number - 1].announce(1, bytes(32), bytes(32), gateway.endpoint)
        for member in world.members:
            member.close()  # type: ignore[attr-defined]
        before = call(lone_anvil.rpc_url, "evm_snapshot")

        def history(rounds: int) -> None:
            for number in range(1, rounds + 1):
                for signer in world.signers:
                    # A client's nonces are of one history only.
                    assert world.deployed is not None
                    ledger = RpcLedger(world.deployed.deployment, world.owner.identity.spec_digest, signer)
                    ledger.publish(an_update(ledger.head(), number, number), ())
                    ledger.close()

        first, second = sites
        history(2)
        first.index.sync()
        first.witness.look()
        call(lone_anvil.rpc_url, "evm_revert", before)
        history(3)
        second.index.sync()
        second.witness.look()
        # Gateways look into their folders every two seconds at most.
        until(lambda: first.witness.look() or len(first.events) > 1)
        for site, other in ((first, second), (second, first)):
            assert site.folder.own_sizes() == [8]
            assert [event.kind for event in site.events] == ["checkpoint", "alarm-equivocation"]
            ((_, conflict),) = site.folder.conflicts()
            assert {*conflict.first.signers, *conflict.second.signers} == {s.address for s in world.signers}
            assert site.folder.others() == {} and other.folder.own(8) in (conflict.first, conflict.second)
        # Where the one that saw the old log follows the new one, it finds that it is not the one that it signed.
        first.index.sync()
        first.witness.look()
        assert first.events[-1].kind == "alarm-inconsistent" and first.folder.own_sizes() == [8]
        for site in sites:
            site.gateway.close()
            site.index.close()
    world.close()


def test_a_checkpoint_of_a_made_up_past_of_the_ledger_is_no_excuse(bench: Bench) -> None:
    """A note of size 0 says nothing, and no member's note makes the witness fail."""
    empty = Checkpoint(
        *(31337, bench.chain.identity.address, 0, bytes(32), 0, bytes(32), 0, bench.chain.identity.spec_digest)
    )
    bench.serves(2, checkpoint.sign(empty, SIGNERS[1]))
    bench.witness(every=100).look()
    assert "checkpoint-failed" not in bench.kinds() and bench.folder.others() == {}


def test_the_routes_of_a_log(bench: Bench) -> None:
    with Gateway(MemoryStore(), routes=log_routes(bench.index, bench.folder)) as gateway:

        def asked(path: str) -> tuple[int, str, bytes]:
            connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            connection.close()
            return response.status, response.headers["Content-Type"], body

        assert asked("/checkpoint")[0] == asked("/checkpoints")[0] == 404
        for path in ("/tile/", "/tile/0/0", "/tile/entries/001", "/tile/0/000", "/tile/0/000.p/10", "/tile/9/000.p/1"):
            status, kind, body = asked(path)
            assert status == 404 and kind.startswith("text/plain") and body, path
        leaves = b"".join(bench.index.subtrees(0, 0, 9))
        assert asked("/tile/0/000.p/9") == (200, "application/octet-stream", leaves)
    bench.witness().look()
    bench.folder.keep_other(SIGNERS[1].address, signed_of(bench, 2, 7))
    with Gateway(MemoryStore(), routes=log_routes(bench.index, bench.folder)) as gateway:
        own = bench.folder.own(8)
        assert own is not None
        assert asked("/checkpoint") == (200, "text/plain; charset=utf-8", own.note)
        assert checkpoint.parse_all(asked("/checkpoints")[2]) == [own, signed_of(bench, 2, 7)]
