"""The hand-written codec against eth_abi and the committed ABI, and against garbage."""

from __future__ import annotations

import json
import os
from importlib import resources
from typing import Any

import eth_abi
import pytest
from eth_utils import keccak, to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_node.ledger import abi, calls, codec, rejection, reverts, views
from fl_node.ledger.deploy import Opening, constructor_data
from fl_node.ledger.transport import RpcError
from fl_node.records import (
    Attestation,
    Body,
    Flag,
    LedgerOpened,
    Member,
    OwnerChanged,
    Parent,
    PeerAdmitted,
    PeerAnnounced,
    PeerRetired,
    Reason,
    Role,
    UnknownEntry,
    Update,
    UpdateObjected,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)

ABI: list[dict[str, Any]] = json.loads(
    (resources.files("fl_node.ledger") / "artifact" / "ModelLedger.json").read_text("utf-8")
)["abi"]

b32 = st.binary(min_size=32, max_size=32)
u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
address = st.binary(min_size=20, max_size=20).map(abi.checksum_address)
text = st.text(max_size=80)
site = st.text(max_size=8).filter(lambda s: "\0" not in s)
updates = st.builds(
    Update,
    content=b32,
    flags=u8.map(Flag),
    weights=b32,
    base=b32,
    report=b32,
    seen=u64,
    seen_root=b32,
    sequence=u32,
    round=u32,
    score_ppm=u32,
    base_score_ppm=u32,
    train_samples=u32,
    test_samples=u32,
    rule=u16,
    encoding=u8,
    refers_to=u64,
    sealed_at=u64,
    extra=st.binary(max_size=256),
)
parents = st.lists(st.builds(Parent, u32, u32, st.binary(min_size=4, max_size=4), u32), max_size=5).map(tuple)
items = st.lists(st.builds(Attestation, u32, u32, u32, u32), max_size=5).map(tuple)
bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(LedgerOpened, st.integers(0, 2**256 - 1), address, b32, b32, b32, u8.map(Flag), u32, address),
    st.builds(OwnerChanged, address, address),
    st.builds(PeerAdmitted, u32, address, site, u8.map(Role)),
    st.builds(PeerRetired, u32, u64, text),
    st.builds(PeerAnnounced, u32, u32, b32, b32, text),
    st.builds(UpdatePublished, u32, updates, parents),
    st.builds(UpdatesAttested, u32, b32, items),
    st.builds(UpdateObjected, u32, st.builds(UpdateRef, u32, u32), st.sampled_from(Reason), b32),
)


def kind_of(parameter: dict[str, Any]) -> str:
    if parameter["type"].startswith("tuple"):
        return f"({','.join(kind_of(part) for part in parameter['components'])}){parameter['type'][5:]}"
    return str(parameter["type"])


def signatures(kind: str) -> dict[str, list[str]]:
    return {item["name"]: [kind_of(p) for p in item["inputs"]] for item in ABI if item["type"] == kind}


def words_of(update: Update) -> tuple[object, ...]:
    u = update
    return (
        *(u.content, int(u.flags), u.encoding, u.refers_to, u.weights, u.base, u.report, u.seen, u.seen_root),
        *(u.sealed_at, u.sequence, u.round, u.score_ppm, u.base_score_ppm, u.train_samples, u.test_samples),
        *(u.rule, u.extra),
    )


def rows_of(body: UpdatePublished | UpdatesAttested) -> list[tuple[object, ...]]:
    if isinstance(body, UpdatePublished):
        return [(p.peer, p.sequence, p.tag, p.share_ppm) for p in body.parents]
    return [(a.peer, a.sequence, a.score_ppm, a.base_score_ppm) for a in body.items]


def values_of(index: int, time_s: int, body: Body) -> list[object]:
    """The event's arguments in the order of its declaration."""
    if isinstance(body, LedgerOpened):
        head = [body.chain_id, body.ledger, body.spec_digest, body.genesis_content, body.genesis_weights]
        return [index, time_s, *head, int(body.genesis_flags), body.min_interval_s, body.owner]
    if isinstance(body, OwnerChanged):
        return [index, time_s, body.previous, body.current]
    assert not isinstance(body, UnknownEntry)
    start: list[object] = [index, body.peer]
    if isinstance(body, PeerAdmitted):
        return [*start, time_s, body.account, codec.encode_site(body.site), int(body.roles)]
    if isinstance(body, PeerRetired):
        return [*start, time_s, body.from_index, body.reason]
    if isinstance(body, PeerAnnounced):
        return [*start, time_s, body.epoch, body.recipient_key, body.tls_pin, body.endpoint]
    if isinstance(body, UpdatePublished):
        return [*start, body.update.round, time_s, words_of(body.update), rows_of(body)]
    if isinstance(body, UpdatesAttested):
        return [*start, time_s, body.evidence, rows_of(body)]
    return [*start, time_s, body.target.peer, body.target.sequence, int(body.reason), body.evidence]


@given(index=u64, time_s=u64, body=bodies)
def test_logs_are_what_eth_abi_makes_of_the_committed_abi(index: int, time_s: int, body: Body) -> None:
    event = next(item for item in ABI if item["type"] == "event" and item["name"] == type(body).__name__)
    kinds = [kind_of(parameter) for parameter in event["inputs"]]
    values = values_of(index, time_s, body)
    indexed = [parameter["indexed"] for parameter in event["inputs"]]
    topics = [bytes(keccak(text=f"{event['name']}({','.join(kinds)})"))]
    topics += [eth_abi.encode([k], [v]) for k, v, topic in zip(kinds, values, indexed, strict=True) if topic]
    rest = [(k, v) for k, v, topic in zip(kinds, values, indexed, strict=True) if not topic]
    data = eth_abi.encode([k for k, _ in rest], [v for _, v in rest])
    assert codec.encode(index, time_s, body) == (tuple(topics), data)
    assert codec.decode(tuple(topics), data) == (index, time_s, body)


@given(update=updates, parents=parents, items=items, evidence=b32, account=address, site=site, text=text, number=u32)
def test_call_data_is_what_eth_abi_makes_of_the_committed_abi(
    update: Update,
    parents: tuple[Parent, ...],
    items: tuple[Attestation, ...],
    evidence: bytes,
    account: str,
    site: str,
    text: str,
    number: int,
) -> None:
    published, attested = UpdatePublished(1, update, parents), UpdatesAttested(1, evidence, items)
    cases: list[tuple[str, bytes, list[object]]] = [
        ("publish", calls.publish(update, parents), [words_of(update), rows_of(published)]),
        ("attest", calls.attest(evidence, items), [evidence, rows_of(attested)]),
        ("object", calls.object_to(UpdateRef(number, 2), Reason.MALFORMED, evidence), [number, 2, 2, evidence]),
        ("announce", calls.announce(number, evidence, evidence, text), [number, evidence, evidence, text]),
        ("admit", calls.admit(account, site, Role.ALL), [account, codec.encode_site(site), 7]),
        ("retire", calls.retire(account, text, number), [account, text, number]),
    ]
    for name, data, values in cases:
        kinds = signatures("function")[name]
        assert data[:4] == keccak(text=f"{name}({','.join(kinds)})")[:4]
        assert data[4:] == eth_abi.encode(kinds, values)


def test_tables_equal_the_committed_abi() -> None:
    inherited = {"OwnershipTransferred", "OwnershipTransferStarted"}  # declared by OpenZeppelin, never emitted here
    events = {name: kinds for name, kinds in signatures("event").items() if name not in inherited}
    assert {name: f"{name}({kinds})" for name, kinds in abi.EVENTS.items()} == {
        name: f"{name}({','.join(kinds)})" for name, kinds in events.items()
    }
    for name, topic in abi.TOPICS.items():
        assert topic == keccak(text=f"{name}({abi.EVENTS[name]})")
    assert {name: rejection.parameters(name) for name in rejection.ERRORS} == {
        item["name"]: tuple((p["type"], p["name"]) for p in item["inputs"]) for item in ABI if item["type"] == "error"
    }
    functions = {f"{name}({','.join(kinds)})" for name, kinds in signatures("function").items()}
    assert set(views.SIGNATURES.values()) <= functions
    assert {f"{name}({kinds})" for name, kinds in abi.WRITES.items()} <= functions


def test_constructor_arguments_are_what_eth_abi_makes_of_the_committed_abi() -> None:
    inputs = next(item for item in ABI if item["type"] == "constructor")["inputs"]
    accounts = [abi.checksum_address(os.urandom(20)) for _ in range(3)]
    members = [Member(accounts[1], "Zürich", Role.ALL), Member(accounts[2], "b", Role.ATTEST)]
    opening = Opening(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32, Flag.DAG_PB, 60, accounts[0], members)
    rows = [(member.account, codec.encode_site(member.site), int(member.roles)) for member in members]
    expected = [opening.spec_digest, opening.genesis_content, opening.genesis_weights, 1, 60, accounts[0], rows]
    assert constructor_data(opening) == eth_abi.encode([kind_of(p) for p in inputs], expected)


@given(raw=st.binary(min_size=20, max_size=20))
def test_addresses_are_mixed_case_as_erc_55_has_them(raw: bytes) -> None:
    assert abi.checksum_address(raw) == to_checksum_address(raw)
    assert abi.address_bytes(abi.checksum_address(raw)) == raw


@settings(max_examples=300)
@given(
    topic=st.sampled_from(list(abi.TOPICS.values())) | b32,
    rest=st.lists(b32, min_size=1, max_size=3),
    data=st.binary(max_size=1000),
)
def test_garbage_is_an_unknown_entry_never_an_exception(topic: bytes, rest: list[bytes], data: bytes) -> None:
    index, _, body = codec.decode((topic, *rest), data)
    assert index == int.from_bytes(rest[0], "big")
    if not isinstance(body, UnknownEntry):
        assert codec.encode(index, codec.decode((topic, *rest), data)[1], body) == ((topic, *rest), data)


@given(body=bodies, at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_flipped_bit_is_never_read_as_the_same_entry(body: Body, at: int, bit: int) -> None:
    topics, data = codec.encode(5, 77, body)
    position = at % len(data)
    flipped = data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]
    assert codec.decode(topics, flipped) != (5, 77, body)


def test_text_that_is_no_utf_8_is_shown_and_not_believed() -> None:
    hostile = b"\xff\xfe\x1b[2J" + bytes(26)
    topics, data = codec.encode(1, 2, PeerAdmitted(3, abi.checksum_address(bytes(20)), "x", Role.ALL))
    _, _, body = codec.decode(topics, data[:64] + hostile + data[96:])
    assert isinstance(body, PeerAdmitted)
    assert body.site == "\\xff\\xfe\x1b[2J"
    body.site.encode()
    topics, data = codec.encode(1, 2, PeerRetired(3, 4, "abcd"))
    _, _, retired = codec.decode(topics, data.replace(b"abcd", b"a\xc3\x28d"))
    assert retired == PeerRetired(3, 4, "a\\xc3(d")


def test_an_unknown_kind_keeps_its_index_and_time() -> None:
    topic = bytes(keccak(text="SomethingNew(uint64,uint64)"))
    found = codec.decode((topic, (9).to_bytes(32, "big")), (1234).to_bytes(32, "big") + b"rest")
    assert found == (9, 1234, UnknownEntry(topic))


@pytest.mark.parametrize("name", sorted(rejection.ERRORS))
def test_contract_errors_decode_with_their_arguments(name: str) -> None:
    samples: dict[str, object] = {"address": abi.checksum_address(bytes([9]) * 20), "bytes4": b"abcd"}
    kinds = [kind for kind, _ in rejection.parameters(name)]
    values = [samples.get(kind, position + 7) for position, kind in enumerate(kinds)]
    data = keccak(text=f"{name}({','.join(kinds)})")[:4] + eth_abi.encode(kinds, values)
    labels = [label for _, label in rejection.parameters(name)]
    assert reverts.decode_revert(data) == (name, dict(zip(labels, values, strict=True)))
    for shape in (
        "0x" + data.hex(),
        {"data": "0x" + data.hex()},
        {"result": "0x" + data.hex()},
        f"Reverted 0x{data.hex()}",
    ):
        assert reverts.revert_data(RpcError("execution reverted", 3, shape)) == data


def test_reverts_that_are_not_the_contract_s_are_told_apart() -> None:
    words = eth_abi.encode(["string"], ["no way"])
    assert reverts.decode_revert(keccak(text="Error(string)")[:4] + words) == ("Error", {"message": "no way"})
    assert reverts.decode_revert(keccak(text="Panic(uint256)")[:4] + (17).to_bytes(32, "big")) == (
        "Panic",
        {"code": 17},
    )
    assert reverts.decode_revert(b"") == ("", {})
    assert reverts.revert_data(RpcError("method not found")) is None
