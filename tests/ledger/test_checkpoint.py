"""Checkpoints: the text to the letter, signatures that others verify, and what contradicts what."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from content.helpers import JS, install, node
from worlds import World, an_update, chain_world, dev_signer, memory_world

from fl_node.chains import DevChain, find_tool
from fl_node.errors import MalformedEvidence
from fl_node.ledger import checkpoint
from fl_node.ledger.checkpoint import Checkpoint, SignedCheckpoint
from fl_node.ledger.index import LedgerIndex
from fl_node.records import Role

ALICE, BOB = dev_signer(1), dev_signer(2)
SOME = Checkpoint(
    31337, "0x5FbDB2315678afecb367f032d93F642f64180aa3", 33, b"\x07" * 32, 34, b"\x90" * 32, 1767225600, b"s" * 32
)
FOREIGN = f"— example.com/other {base64.b64encode(b'idid' + bytes(64)).decode()}\n".encode()


def lived(world: World, rounds: int = 4) -> World:
    for number in range(1, rounds + 1):
        for ledger in world.members:
            ledger.publish(an_update(ledger.head(), number, number), ())
    return world


@pytest.fixture
def log() -> Iterator[LedgerIndex]:
    world = lived(memory_world((Role.ALL, Role.ALL)))
    with LedgerIndex(":memory:", world.owner) as index:
        index.sync()
        yield index


def test_the_text_to_the_letter() -> None:
    signed = checkpoint.sign(SOME, ALICE)
    text, signature = signed.note.decode().split("\n\n")
    assert text.split("\n") == [
        "eip155:31337:0x5fbdb2315678afecb367f032d93f642f64180aa3",
        "33",
        base64.b64encode(SOME.root).decode(),
        f"block 34 0x{'90' * 32}",
        "time 1767225600",
        f"spec {SOME.spec_digest.hex()}",
    ]
    dash, name, encoded = signature.removesuffix("\n").split(" ")
    assert (dash, name, len(base64.b64decode(encoded))) == ("—", ALICE.address.lower(), 4 + 65)
    assert checkpoint.parse(signed.note) == signed and signed.signers == (ALICE.address,)


def test_cast_verifies_the_signature_over_the_text() -> None:
    signed = checkpoint.sign(SOME, ALICE)
    signature = base64.b64decode(signed.note.decode().split()[-1])[4:].hex()
    told = {}
    for account, text in ((ALICE, SOME.text), (BOB, SOME.text), (ALICE, SOME.text.replace(b"\n33\n", b"\n34\n"))):
        command = [
            *find_tool("cast"),
            "wallet",
            "verify",
            "--address",
            account.address,
            text.decode(),
            f"0x{signature}",
        ]
        told[account.address, text] = subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert list(told.values()) == [True, False, False]


def test_every_flipped_bit_is_found() -> None:
    """Of the text or of a signature: the whole note fails, or the signer does not count any more."""
    signed = checkpoint.cosigned([checkpoint.sign(SOME, ALICE), checkpoint.sign(SOME, BOB)])
    assert set(signed.signers) == {ALICE.address, BOB.address}
    for at in range(8 * len(signed.note)):
        flipped = bytearray(signed.note)
        flipped[at // 8] ^= 1 << at % 8
        try:
            left = checkpoint.parse(bytes(flipped))
        except MalformedEvidence:
            continue
        assert left.checkpoint == SOME and len(left.signers) == 1, f"bit {at}"


def test_signatures_of_other_types_are_ignored_and_one_of_ours_is_needed() -> None:
    signed = checkpoint.sign(SOME, ALICE)
    with_foreign = SOME.text + b"\n" + FOREIGN + signed.note[len(SOME.text) + 1 :]
    assert checkpoint.parse(with_foreign) == SignedCheckpoint(SOME, with_foreign, (ALICE.address,))
    # The name of a known key with the id of another one is another key.
    named = f"— {BOB.address.lower()} {base64.b64encode(b'idid' + bytes(65)).decode()}\n".encode()
    assert checkpoint.parse(signed.note + named).signers == (ALICE.address,)
    for nobody in (FOREIGN, named):
        with pytest.raises(MalformedEvidence, match="nobody"):
            checkpoint.parse(SOME.text + b"\n" + nobody)


def test_the_other_form_of_a_signature_is_refused() -> None:
    """(r, n - s) verifies as well; two notes of one signature would look like two."""
    signed = checkpoint.sign(SOME, ALICE)
    raw = base64.b64decode(signed.note.decode().split()[-1])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    mirrored = raw[:36] + (order - int.from_bytes(raw[36:68], "big")).to_bytes(32, "big") + bytes([55 - raw[68]])
    for other in (mirrored, raw[:-1], raw + b"\0", raw[:-1] + bytes([raw[-1] - 27]), raw[:4] + bytes(65)):
        encoded = base64.b64encode(other).decode()
        note = SOME.text + f"\n— {ALICE.address.lower()} {encoded}\n".encode()
        with pytest.raises(MalformedEvidence, match="does not verify"):
            checkpoint.parse(note)


def _with_text(change: Callable[[str], str]) -> bytes:
    """A note whose text was changed before it was signed: the signature is right, the form is not."""
    text = change(SOME.text.decode()).encode()
    name = ALICE.address.lower()
    signature = base64.b64encode(checkpoint.key_id(name) + ALICE.sign_text(text)).decode()
    return text + f"\n— {name} {signature}\n".encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n33\n", "\n033\n"),
        lambda text: text.replace("\n33\n", "\n+33\n"),
        lambda text: text.replace("\n33\n", "\n\n"),
        lambda text: text.replace("\n33\n", f"\n{2**63}\n"),
        lambda text: text.replace("\n33\n", f"\n{'9' * 5000}\n"),
        lambda text: text.replace("time 1767225600", "time -1"),
        lambda text: text.replace("31337", str(2**256)),
        lambda text: text.replace("HBwc=", "HBwd="),
        lambda text: text.replace("HBwc=", "HBw=="),
        lambda text: text.replace("=\n", "\n"),
        lambda text: text.replace("5fbd", "5FbD"),
        lambda text: text.replace("block 34", "block  34"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "more\n",
        lambda text: text.replace("spec", "note"),
        lambda text: text[: text.index("spec")],
        lambda text: text.replace("3", "٣"),
    ],
)
def test_only_the_canonical_text_is_read(change: Callable[[str], str]) -> None:
    assert change(SOME.text.decode()) != SOME.text.decode()
    with pytest.raises(MalformedEvidence):
        checkpoint.parse(_with_text(change))
    assert checkpoint.parse(_with_text(lambda text: text)).signers == (ALICE.address,)


def test_what_is_no_note_or_too_large_is_refused() -> None:
    note = checkpoint.sign(SOME, ALICE).note
    line = note[len(SOME.text) + 1 :]
    for bad in (
        b"",
        b"\n\n",
        SOME.text,
        SOME.text + b"\n",
        note[:-1],
        note + b"\n",
        note + line,
        note.replace("—".encode(), b"-"),
        note.replace(b" 0x", b" 0x+", 1)[::-1],
        note + "— two words aWRpZGlkaWQ=\n".encode(),
        note + "— a+b aWRpZGlkaWQ=\n".encode(),
        note + "— short aWQ=\n".encode(),
        note + "— \x01 aWRpZGlkaWQ=\n".encode(),
        note + b"\xff\xfe\n",
        note + FOREIGN * checkpoint.MAX_SIGNATURES,
        note + b"x" * checkpoint.MAX_NOTE_BYTES,
    ):
        with pytest.raises(MalformedEvidence):
            checkpoint.parse(bad)
    assert checkpoint.parse(note + FOREIGN * (checkpoint.MAX_SIGNATURES - 1)).signers == (ALICE.address,)


def test_a_log_s_checkpoint_holds_against_it_at_every_size(log: LedgerIndex) -> None:
    for size in range(1, log.size + 1):
        made = checkpoint.at(log, size)
        last = log.entry(size - 1)
        assert made.root == log.root(size)
        assert (made.block_number, made.block_hash, made.time_s) == (last.block_number, last.block_hash, last.time_s)
        assert checkpoint.holds(made, log) is None
    assert checkpoint.at(log) == checkpoint.at(log, log.size)
    for size in (0, log.size + 1):
        with pytest.raises(LookupError):
            checkpoint.at(log, size)


def test_what_does_not_hold_is_named(log: LedgerIndex) -> None:
    made = checkpoint.at(log)
    for changes, words in (
        ({"size": made.size + 1}, "shorter than signed"),
        ({"size": 2**63 - 1}, "shorter than signed"),
        ({"size": made.size - 1}, "have the root"),
        ({"root": bytes(32)}, "have the root"),
        ({"chain_id": 1}, "it is of eip155:1:"),
        ({"contract": SOME.contract}, "it is of"),
        ({"spec_digest": bytes(32)}, "names the spec"),
    ):
        assert words in str(checkpoint.holds(replace(made, **changes), log))  # type: ignore[arg-type]


def test_an_empty_log_holds_nothing() -> None:
    world = memory_world((Role.ALL,))
    with LedgerIndex(":memory:", world.owner) as index:
        assert "no log" in str(checkpoint.holds(SOME, index))


def test_two_roots_of_one_size_are_a_conflict_that_carries_its_proof() -> None:
    first = checkpoint.sign(SOME, ALICE)
    other = replace(SOME, root=bytes(32), block_hash=bytes(32))
    same_signer, another = checkpoint.sign(other, ALICE), checkpoint.sign(other, BOB)
    found = checkpoint.compare(first, same_signer)
    assert found is not None and found.equivocators == (ALICE.address,)
    assert checkpoint.parse_all(found.proof) == [first, same_signer]
    assert checkpoint.conflicts(checkpoint.parse_all(found.proof)) == [found]
    by_two = checkpoint.compare(first, another)
    assert by_two is not None and by_two.equivocators == ()
    assert ALICE.address in by_two.text and BOB.address in by_two.text


def test_what_is_no_conflict() -> None:
    first = checkpoint.sign(SOME, ALICE)
    for changes in ({"size": 34, "root": bytes(32)}, {"chain_id": 1, "root": bytes(32)}, {"block_number": 35}):
        assert checkpoint.compare(first, checkpoint.sign(replace(SOME, **changes), BOB)) is None  # type: ignore[arg-type]
    assert checkpoint.compare(first, first) is None
    assert checkpoint.conflicts([first, first]) == []
    other_spec = checkpoint.sign(replace(SOME, size=40, spec_digest=bytes(32)), BOB)
    assert "two specs" in checkpoint.conflicts([first, other_spec])[0].text


def test_every_flipped_bit_of_a_proof_is_found() -> None:
    conflict = checkpoint.compare(checkpoint.sign(SOME, ALICE), checkpoint.sign(replace(SOME, root=bytes(32)), BOB))
    assert conflict is not None
    proof = conflict.proof
    for at in range(8 * len(proof)):
        flipped = bytearray(proof)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(MalformedEvidence):
            checkpoint.parse_all(bytes(flipped))


def test_many_notes_in_one_file_have_a_bound() -> None:
    note = checkpoint.sign(SOME, ALICE).note
    assert len(checkpoint.parse_all(note * 3)) == 3
    for bad in (b"", b"\n", note * 4, b"x" + note):
        with pytest.raises(MalformedEvidence):
            checkpoint.parse_all(bad, most=3)


def test_cosigning_takes_one_text() -> None:
    ours = [checkpoint.sign(SOME, ALICE), checkpoint.sign(SOME, BOB)]
    assert checkpoint.cosigned(reversed(ours)) == checkpoint.cosigned([*ours, *ours])
    for bad in ([], [ours[0], checkpoint.sign(replace(SOME, size=34), BOB)]):
        with pytest.raises(ValueError, match="texts"):
            checkpoint.cosigned(bad)


def test_consistency_between_checkpoints_of_a_chain_by_an_implementation_of_others(anvil: DevChain) -> None:
    """Every pair of sizes of a log on Anvil; and no proof is accepted with a bit of it changed."""
    world = lived(chain_world(anvil, (Role.ALL, Role.ALL, Role.ALL)), rounds=5)
    folder = install(JS / "proofs")
    with LedgerIndex(":memory:", world.owner) as index:
        index.sync()
        signed = [checkpoint.sign(checkpoint.at(index, size), ALICE).note for size in range(1, index.size + 1)]
        made = {size: checkpoint.parse(note) for size, note in enumerate(signed, start=1)}
        plans = []
        for first in made:
            for second in range(first + 1, index.size + 1):
                roots = [made[size].checkpoint.root.hex() for size in (first, second)]
                path = [step.hex() for step in index.consistency_proof(first, second)]
                plans.append({"first": first, "second": second, "root1": roots[0], "root2": roots[1], "path": path})
    world.close()
    honest = len(plans)
    assert honest == 19 * 18 // 2
    for at in range(honest):
        step = at % len(plans[at]["path"])
        altered = list(plans[at]["path"])
        altered[step] = f"{int(altered[step], 16) ^ 1 << at % 256:064x}"
        plans.append({**plans[at], "path": altered})
    said = judged(folder, plans)
    assert said == [True] * honest + [False] * honest


def judged(folder: Path, plans: list[dict[str, object]]) -> list[bool]:
    lines = "".join(json.dumps(plan) + "\n" for plan in plans)
    done = subprocess.run(
        node(folder / "consistency.mjs"), input=lines, capture_output=True, text=True, timeout=120, check=True
    )
    return [line == "true" for line in done.stdout.split()]
