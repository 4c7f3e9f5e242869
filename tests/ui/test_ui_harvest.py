"""What the explorer fetches besides the log: from real gateways and a real chain, and from strangers who lie."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ui_demo import Left
from ui_logs import Explored, closing, digest, explored
from ui_scribe import Scribe

from fl_node import keys
from fl_node.content.gateway import Gateway
from fl_node.content.http_server import Request, Response
from fl_node.content.memory import MemoryStore
from fl_node.content.unixfs import build
from fl_node.ledger.checkpoint import Checkpoint, sign
from fl_node.records import Flag, PeerAdmitted, PeerAnnounced, Role
from fl_node.spec import parse_federation
from ledger_ui.index import gas, reports
from ledger_ui.index.newest import Newest

SPEC = """\
format = 1
name = "near"

[content]
fetch_timeout_s = 2.0
allow_networks = ["127.0.0.0/8"]
"""


def rows(one: Explored, query: str, *values: object) -> list[Any]:
    with one.shown.store.reading() as db:
        return [tuple(row) for row in db.execute(query, values)]


# ---- over a real federation ----------------------------------------------------------------------------------------


@pytest.fixture
def real(left: Left, tmp_path: Path) -> Iterator[Explored]:
    yield from closing(left.explorer(tmp_path))


def test_every_report_is_fetched_and_is_the_recorded_one(real: Explored) -> None:
    real.shown.harvester.reports()
    found = rows(real, "SELECT u.report, r.status, r.body FROM updates u LEFT JOIN reports r ON r.idx = u.idx")
    assert len(found) == 9
    for recorded, status, body in found:
        assert status == "ok" and hashlib.sha256(body).digest() == recorded
        assert json.loads(body)["metrics"]["samples"] > 0
    assert rows(real, "SELECT value FROM ui_state WHERE key = 'reports_of'") == [(9,)]


def test_every_transaction_is_fetched_and_its_gas_added_up(real: Explored) -> None:
    real.shown.harvester.transactions()
    found = rows(
        real, "SELECT e.tx_hash, t.sender, t.gas_used, t.raw FROM entries e LEFT JOIN transactions t USING (tx_hash)"
    )
    assert found and all(gas_used > 21_000 and raw for _, _, gas_used, raw in found)
    senders = {sender for _, sender, _, _ in found}
    assert {account for (account,) in rows(real, "SELECT account FROM peers")} <= senders
    once = {tx_hash: gas_used for tx_hash, _, gas_used, _ in found}
    assert rows(real, "SELECT value FROM ui_state WHERE key = 'gas'") == [(sum(once.values()),)]
    assert rows(real, "SELECT value FROM ui_state WHERE key = 'gas_of'") == [(len(once),)]


def test_who_has_the_latest_updates_and_how_large_all_are(real: Explored, left: Left) -> None:
    for _ in range(4):
        real.shown.harvester.holders()
    asked = rows(
        real, "SELECT u.peer, h.haves, h.publisher, h.detail FROM holders h JOIN updates u USING (idx) WHERE h.asked_at"
    )
    assert {peer for peer, *_ in asked} == {1, 2, 3}
    assert all(haves >= 1 and publisher == 1 and "has it" in detail for _, haves, publisher, detail in asked)
    sizes = rows(real, "SELECT size_bytes FROM holders")
    assert len(sizes) == 9 and all(size and 1000 < size < 10_000 for (size,) in sizes)
    assert rows(real, "SELECT value FROM ui_state WHERE key = 'bytes'") == [(sum(size for (size,) in sizes),)]


def test_an_update_that_is_looked_at_is_asked_about(real: Explored) -> None:
    (idx,) = rows(real, "SELECT idx FROM updates WHERE peer = 1 AND sequence = 1")[0]
    assert rows(real, "SELECT asked_at FROM holders WHERE idx = ?", idx) == []
    real.json("/updates/1-1.json")
    real.shown.harvester.holders()
    assert rows(real, "SELECT haves > 0 FROM holders WHERE idx = ?", idx) == [(1,)]


def test_members_checkpoints_hold(real: Explored) -> None:
    real.shown.harvester.checkpoints()
    found = rows(real, "SELECT peer, size, trouble FROM notes")
    assert {peer for peer, _, _ in found} == {1, 2, 3}
    assert all(trouble is None and size > 0 for _, size, trouble in found)


def test_it_all_happens_by_itself_and_wakes_those_who_listen(left: Left, tmp_path: Path) -> None:
    one = left.explorer(tmp_path)
    changes = one.shown.wait(-1, 0)
    assert one.json("/health.json")["harvest"]["reports"] == 0
    one.shown.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        told = one.json("/health.json")["harvest"]
        counts = (told["reports"], told["checkpoints"], told["sizes"], told["answering"], told["announced"])
        if counts == (9, 3, 9, 3, 3) and told["transactions"] > 9:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(told)
    assert one.shown.wait(changes, 0) > changes
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 3.0


# ---- over strangers ------------------------------------------------------------------------------------------------


class Far:
    """A hand-written ledger whose peers announce gateways that are there, with whatever they serve."""

    def __init__(self, folder: Path, peers: int = 1) -> None:
        self.told = Scribe(parse_federation(SPEC.encode()).digest)
        self.stores = [MemoryStore() for _ in range(peers)]
        self.notes = [b""] * peers
        self.gateways = [
            Gateway(store, routes={"/checkpoint": self._checkpoint(number)}) for number, store in enumerate(self.stores)
        ]
        for number, gateway in enumerate(self.gateways, 1):
            self.told.admit(f"site-{number}")
            self.told.say(PeerAnnounced(number, 1, bytes(32), bytes(32), gateway.endpoint))
        self.one = explored(folder, self.told, SPEC.encode(), harvest=True)

    def _checkpoint(self, number: int) -> Any:
        def answer(request: Request) -> Response:
            body = self.notes[number]
            return Response(200 if body else 404, {}, (body,), len(body))

        return answer

    def close(self) -> None:
        self.one.stop()
        for gateway in self.gateways:
            gateway.close()


@contextmanager
def far(folder: Path, peers: int = 1) -> Iterator[Far]:
    one = Far(folder, peers)
    try:
        yield one
    finally:
        one.close()


def test_reports_that_are_none(tmp_path: Path) -> None:
    bodies = {
        "gone": b'{"never": "served"}',
        "malformed": b"[1, 2, 3]",
        "deep": b"[" * 100_000,
        "refused": b'{"x": "' + b"y" * reports.MOST_BYTES + b'"}',
        "ok": b'{"fine": true}',
    }
    with far(tmp_path) as world:
        for sequence, (name, body) in enumerate(bodies.items(), 1):
            if name != "gone":
                world.stores[0].add(body)
            world.told.publish(1, sequence, sequence, report=hashlib.sha256(body).digest())
        world.told.publish(1, 9, 9, report=bytes(32))
        world.one.look()
        world.one.shown.harvester.reports()
        found = rows(world.one, "SELECT status, body IS NOT NULL, due_at IS NOT NULL FROM reports ORDER BY idx")
        assert found == [
            ("gone", 0, 1),
            ("malformed", 1, 0),
            ("malformed", 1, 0),
            ("refused", 0, 0),
            ("ok", 1, 0),
            ("none", 0, 0),
        ]


def test_a_report_that_was_gone_is_asked_for_again_with_growing_pauses(tmp_path: Path) -> None:
    body = b'{"late": true}'
    with far(tmp_path) as world:
        world.told.publish(1, 1, 1, report=hashlib.sha256(body).digest())
        world.one.look()
        pauses = []
        for _ in range(3):
            world.one.shown.harvester.reports()
            ((due, tried),) = rows(world.one, "SELECT due_at, tried_at FROM reports")
            pauses.append(round(due - tried))
            with world.one.shown.store.writing() as db:
                db.execute("UPDATE reports SET due_at = ?", (time.time() - 1,))
        assert pauses == [20, 40, 80]
        world.stores[0].add(body)
        world.one.shown.harvester.reports()
        assert rows(world.one, "SELECT status, due_at FROM reports") == [("ok", None)]


def test_what_was_fetched_goes_with_its_entry_and_comes_again_for_another(tmp_path: Path) -> None:
    bodies = [b'{"first": 1}', b'{"second": 2}']
    with far(tmp_path) as world:
        for body in bodies:
            world.stores[0].add(body)
        contents = [world.stores[0].add(b"x" * size) for size in (1000, 2000)]
        size = world.told.size
        world.told.publish(1, 1, 1, report=hashlib.sha256(bodies[0]).digest(), content=contents[0].digest)
        world.one.look()
        harvester = world.one.shown.harvester
        harvester.reports()
        harvester.holders()
        assert rows(world.one, "SELECT body FROM reports") == [(bodies[0],)]
        assert rows(world.one, "SELECT value FROM ui_state WHERE key = 'bytes'") == [(1000,)]
        world.told.cut(size)
        world.told.publish(1, 1, 1, report=hashlib.sha256(bodies[1]).digest(), content=contents[1].digest)
        world.one.look()
        assert rows(world.one, "SELECT count(*) FROM reports") == [(0,)]
        harvester.reports()
        harvester.holders()
        assert rows(world.one, "SELECT body FROM reports") == [(bodies[1],)]
        assert rows(world.one, "SELECT value FROM ui_state WHERE key = 'bytes'") == [(2000,)]


def test_sizes_of_larger_files_come_from_the_root_block(tmp_path: Path) -> None:
    with far(tmp_path) as world:
        large = bytes(3_000_001)
        root = world.stores[0].add(large)
        assert root.codec == "dag-pb" and build(large).root == root
        world.told.publish(1, 1, 1, content=root.digest, flags=Flag.DAG_PB)
        world.told.publish(1, 2, 2, content=digest("nobody has it"), flags=Flag.DAG_PB)
        world.one.look()
        world.one.shown.harvester.holders()
        world.one.shown.harvester.holders()
        found = rows(world.one, "SELECT u.sequence, h.size_bytes FROM holders h JOIN updates u USING (idx) ORDER BY 1")
        assert found == [(1, 3_000_001), (2, None)]


def test_two_roots_of_one_size_are_kept_and_told_of_both(tmp_path: Path) -> None:
    with far(tmp_path, peers=2) as world:
        signer = keys.from_private_key(b"\x07" * 32)
        world.told.say(_admitted(3, signer.address))
        head = world.told.head()
        known = world.told.identity
        honest = Checkpoint(
            *(known.chain_id, known.address, head.size, head.root, head.block_number, head.block_hash, 1),
            known.spec_digest,
        )
        other = Checkpoint(
            *(known.chain_id, known.address, head.size, bytes(32), head.block_number, head.block_hash, 1),
            known.spec_digest,
        )
        world.notes = [sign(honest, signer).note, sign(other, signer).note]
        world.one.look()
        world.one.shown.harvester.checkpoints()
        found = rows(world.one, "SELECT peer, root, trouble FROM notes ORDER BY root")
        assert [(peer, root) for peer, root, _ in found] == sorted([(3, bytes(32)), (3, head.root)])
        lie, truth = (trouble for _, _, trouble in found)
        assert "have the root" in lie and "signed another one as well" in lie
        assert "signed another one as well" in truth
        kinds = [alarm["kind"] for alarm in world.one.json("/health.json")["alarms"]]
        assert kinds.count("inconsistent") == 2


def test_a_strangers_checkpoint_is_no_members_word(tmp_path: Path) -> None:
    with far(tmp_path) as world:
        known, head = world.told.identity, world.told.head()
        wrong = Checkpoint(
            *(known.chain_id, known.address, head.size, bytes(32), head.block_number, head.block_hash, 1),
            known.spec_digest,
        )
        world.notes = [sign(wrong, keys.from_private_key(b"\x08" * 32)).note]
        world.one.shown.harvester.checkpoints()
        ((peer, trouble),) = rows(world.one, "SELECT peer, trouble FROM notes")
        assert peer is None and trouble
        kinds = {alarm["kind"] for alarm in world.one.json("/health.json")["alarms"]}
        assert "inconsistent" not in kinds


def test_a_checkpoint_ahead_of_the_log_waits_for_it(tmp_path: Path) -> None:
    with far(tmp_path) as world:
        signer = keys.from_private_key(b"\x09" * 32)
        before = world.told.size
        world.told.say(_admitted(2, signer.address))
        known, head = world.told.identity, world.told.head()
        told = Checkpoint(
            *(known.chain_id, known.address, head.size, head.root, head.block_number, head.block_hash, 1),
            known.spec_digest,
        )
        world.notes = [sign(told, signer).note]
        assert world.one.json("/health.json")["federation"]["size"] == before
        world.one.shown.harvester.checkpoints()
        assert rows(world.one, "SELECT count(*) FROM notes") == [(0,)]
        world.one.look()
        world.one.shown.harvester.checkpoints()
        assert rows(world.one, "SELECT peer, trouble FROM notes") == [(2, None)]


def test_gateways_in_networks_that_the_spec_does_not_name_are_not_asked(tmp_path: Path) -> None:
    asked = []

    def note(request: Request) -> Response:
        asked.append(request.path)
        return Response(404, {}, (), 0)

    with Gateway(MemoryStore(), routes={"/checkpoint": note}) as gateway:
        told = Scribe(parse_federation(SPEC.replace("127.0.0.0/8", "10.9.9.0/24").encode()).digest)
        told.admit("site")
        told.say(PeerAnnounced(1, 1, bytes(32), bytes(32), gateway.endpoint))
        told.publish(1, 1, 1)
        one = explored(tmp_path, told, SPEC.replace("127.0.0.0/8", "10.9.9.0/24").encode(), harvest=True)
        one.shown.harvester.reports()
        one.shown.harvester.checkpoints()
        one.shown.harvester.holders()
        assert asked == [] and rows(one, "SELECT count(*) FROM reports") == [(0,)]
        one.stop()


def test_new_entries_come_first_and_then_those_further_back(tmp_path: Path) -> None:
    told = Scribe(parse_federation(SPEC.encode()).digest)
    told.admit("site")
    for sequence in range(1, 8):
        told.publish(1, sequence, sequence)
    one = explored(tmp_path, told, SPEC.encode())
    walk = Newest("SELECT idx FROM updates WHERE idx >= :low AND idx < :high ORDER BY idx {way} LIMIT :most")

    def ask(most: int) -> list[int]:
        with one.shown.store.reading() as db:
            return [row["idx"] for row in walk.next(db, most)]

    assert ask(3) == [8, 7, 6]
    told.publish(1, 8, 8)
    one.look()
    assert ask(3) == [9]
    assert ask(3) == [5, 4, 3] and ask(3) == [2] and ask(3) == []
    told.cut(8)
    told.publish(1, 7, 7, train_samples=3)
    one.look()
    assert ask(2) == [8, 7], "another entry may stand where one was looked at"
    one.stop()


def test_what_an_endpoint_makes_up_is_not_believed() -> None:
    class Liar:
        def batch(self, asked: list[Any]) -> list[Any]:
            return [{"gasUsed": hex(1 << 60), "from": "0x" + "11" * 20} for _ in asked]

    (sent,) = gas.fetched(Liar(), [b"\x01" * 32])  # type: ignore[arg-type]
    assert sent == gas.Sent(b"\x01" * 32, None, None, None)


def test_no_thread_asks_while_the_log_is_not_this_ledgers(tmp_path: Path) -> None:
    with far(tmp_path) as world:
        steps = []
        harvester = world.one.shown.harvester
        harvester._state = lambda: "refused"
        harvester._stop.wait = lambda seconds: harvester._stop.set()  # type: ignore[method-assign,assignment,func-returns-value]
        harvester._run(lambda: steps.append(1) or 0.0)
        assert steps == []


def _admitted(peer: int, account: str) -> Any:
    return PeerAdmitted(peer, account, f"site-{peer}", Role.ALL)
