"""Tamperings of the log, the chain and the ledger's opening: by an endpoint, an operator, an owner, a deployer."""

from __future__ import annotations

from dataclasses import replace

from given import Given, given
from signed_ledger import CHAIN_ID, block_hash, key
from tampering import ALL, Found, begun, case, honest, shown

from fl_node.audit.verdicts import Finding, Result
from fl_node.content.cid import Cid
from fl_node.errors import MalformedEvidence
from fl_node.ledger import tree
from fl_node.ledger.checkpoint import Checkpoint, sign
from fl_node.ledger.deploy import committed_artifact
from fl_node.ledger.index import LedgerIndex
from fl_node.ledger.tiles import Tile, TileLog
from fl_node.merging import weights
from fl_node.records import (
    Attestation,
    PeerAdmitted,
    Reason,
    UnknownEntry,
    UpdatePublished,
    UpdateRef,
    UpdatesAttested,
)
from fl_node.spec import parse_federation

ENDPOINT, OPERATOR, KEYS, OPENING = "An endpoint that lies", "A chain rewritten", "Keys and blocks", "The opening"
#: What nobody can tell without the genesis.
UNREPLAYED = ("bytes", "sealed", "well-formed", "commitment", "merge", "originality")
NOT_THE_HISTORY = "it is not the history that was signed"


# ---- an endpoint ---------------------------------------------------------------------------------------------------


def root_of(one: Given) -> bytes:
    return tree.root([tree.entry_leaf(log.topics, log.data) for log in one.logs])


def alter(one: Given) -> int:
    """Raise the score in the entry of 2#2."""
    index = one.index_of("2#2")
    body = one.body(index)
    assert isinstance(body, UpdatePublished)
    one.rewrite(index, replace(body, update=replace(body.update, score_ppm=900_000)))
    return index


def swap(one: Given, first: int) -> None:
    """Two neighbours in each other's place, their blocks as they were."""
    one.logs[first : first + 2] = reversed(one.logs[first : first + 2])
    one.renumber()


def an_attestation(one: Given) -> int:
    return next(index for index in range(20, len(one.logs)) if isinstance(one.body(index), UpdatesAttested))


@case(ENDPOINT, "an entry omitted", "included", "failed", "got entry 11 after 9")
def omitted() -> Given:
    one = shown()
    del one.logs[10]
    return one


@case(ENDPOINT, "two entries swapped", "included", "failed", "got entry 11 after 9")
def swapped() -> Given:
    one = shown()
    one.logs[10:12] = one.logs[11], one.logs[10]
    return one


@case(ENDPOINT, "an entry altered", "included", "failed", "does not match the contract: got root")
def altered() -> Given:
    one = shown()
    one.root = root_of(one)
    alter(one)
    return one


@case(
    ENDPOINT,
    "an entry omitted, with a root that fits",
    "consistent",
    "failed",
    NOT_THE_HISTORY,
    on="2#3",
    also=["consistent", "membership"],
)
def omitted_with_root() -> Given:
    one = shown()
    del one.logs[an_attestation(one)]
    one.renumber()
    return one


@case(
    ENDPOINT,
    "two entries swapped, with a root that fits",
    "consistent",
    "failed",
    NOT_THE_HISTORY,
    on="2#3",
    also=["consistent", "membership", "3#2 selection", "3#2 report"],
)
def swapped_with_root() -> Given:
    one = shown()
    swap(one, an_attestation(one) - 1)
    return one


@case(
    ENDPOINT,
    "the last two entries swapped, which nobody had seen, with a root that fits",
    "membership",
    "failed",
    "it is in block",
    also=["canonical"],
)
def tail_swapped() -> Given:
    play = begun()
    play.ledger.announce(1, "memory://1b")
    play.ledger.announce(2, "memory://2b")
    one = given(play)
    swap(one, len(one.logs) - 2)
    for index in (-2, -1):  # nor does the time tell
        one.rewrite(len(one.logs) + index, one.body(len(one.logs) + index), one.time_s(len(one.logs) - 2))
    return one


@case(
    ENDPOINT, "two entries of one account swapped, blocks and all", "canonical", "failed", "not the order of the chain"
)
def nonces() -> Given:
    play = begun()
    for sequence in (3, 4):
        play.ledger.attest(1, [Attestation(sequence, 1, 900_000, 100_000)])
    one = given(play)
    first, second = one.logs[-2:]
    one.logs[-2:] = (
        replace(second, block_number=first.block_number, block_hash=first.block_hash),
        replace(first, block_number=second.block_number, block_hash=second.block_hash),
    )
    one.renumber()
    for index in range(len(one.logs) - 2, len(one.logs)):
        log = one.logs[index]
        block = one.blocks[log.block_number]
        one.rewrite(index, one.body(index), block.time_s)
        one.blocks[log.block_number] = replace(block, transactions=frozenset([log.tx_hash]))
    return one


@case(
    ENDPOINT,
    "an entry altered, with a root that fits",
    "canonical",
    "failed",
    "asks for something else than this UpdatePublished entry says",
    on="2#2",
    also=["consistent", "2#2 report", "2#2 score"],
)
def altered_with_root() -> Given:
    one = shown()
    alter(one)
    return one


@case(ENDPOINT, "an entry given another time, with a root that fits", "canonical", "failed", "the entry says", on="4#4")
def other_time() -> Given:
    one = shown()
    index = one.index_of("4#4")
    one.rewrite(index, one.body(index), one.time_s(index) - 1)
    return one


@case(
    ENDPOINT,
    "an entry of a kind that the contract does not make",
    "membership",
    "failed",
    "no kind of entry that the contract makes",
    also=["canonical"],
)
def unknown_kind() -> Given:
    one = shown()
    last = one.logs[-1]
    one.logs[-1] = replace(last, topics=(b"\x42" * 32, *last.topics[1:]))
    assert isinstance(one.body(len(one.logs) - 1), UnknownEntry)
    return one


@case(
    ENDPOINT,
    "one transaction told as two entries",
    "canonical",
    "failed",
    "one call makes one entry",
    also=["membership"],
)
def told_twice() -> Given:
    one = shown()
    one.logs.append(one.logs[-1])
    one.renumber()
    return one


@case(
    ENDPOINT,
    "the newest entries withheld, with a peer's checkpoint at hand",
    "consistent",
    "failed",
    "shorter than signed: the log has 36 entries, 46 were signed",
)
def withheld() -> Given:
    one = shown()
    one.checkpoints.append(sign(checkpoint(one), key("peer 2")))
    del one.logs[-10:]
    return one


@case(
    ENDPOINT,
    "the newest entries withheld, and nobody's checkpoint at hand",
    "consistent",
    "unknown",
    "only the endpoint vouches that this is all of the log",
)
def withheld_unseen() -> Given:
    one = shown()
    del one.logs[-10:]
    return one


@case(
    ENDPOINT, "a signed transaction withheld", "canonical", "unknown", "no signed transaction of this entry", on="3#1"
)
def no_transaction() -> Given:
    one = shown()
    del one.raws[one.logs[one.index_of("3#1")].tx_hash]
    return one


def tiles_of(one: Given) -> tuple[dict[str, bytes], int, bytes]:
    """The log as static files, its size and root."""
    means = one.means()
    assert isinstance(means.log, LedgerIndex)
    with means.log as log:
        tiles = [Tile(None, 0, log.size), Tile(0, 0, log.size)]
        return {tile.path: tile.read(log) for tile in tiles}, log.size, log.root()


def read_tiles(altered_one: str, at: int) -> Found:
    """What a reader of tiles finds, one of which has another byte."""
    files, size, root = tiles_of(shown())
    data = bytearray(files[altered_one])
    data[at] ^= 1
    files[altered_one] = bytes(data)
    try:
        list(TileLog(files.__getitem__, size, root).logs())
    except MalformedEvidence as cause:
        return [(ALL, Finding("included", Result.FAILED, str(cause)))]
    return [(ALL, Finding("included", Result.OK, "the tiles are the log's"))]


@case(ENDPOINT, "a tile of hashes altered", "included", "failed", "tile/0/000.p/46 is altered")
def tile_altered() -> Found:
    return read_tiles("tile/0/000.p/46", 77)


@case(ENDPOINT, "a tile of entries altered", "included", "failed", "tile/entries/000.p/46 is altered")
def bundle_altered() -> Found:
    return read_tiles("tile/entries/000.p/46", 1000)


# ---- an operator ---------------------------------------------------------------------------------------------------


def checkpoint(one: Given, size: int | None = None) -> Checkpoint:
    """What these logs come to, as an honest witness signs it."""
    means = one.means()
    with means.log as log:
        count = size or log.size
        last = log.entry(count - 1)
        where = last.block_number, last.block_hash, last.time_s, means.prefix.opened.spec_digest
        return Checkpoint(CHAIN_ID, one.address, count, log.root(count), *where)


def rewritten() -> Given:
    """All signed transactions in new blocks, but one attestation, which no later transaction depends on."""
    play = honest()
    return given(play, play.ledger.replayed(an_attestation(shown()), "other"))


@case(
    OPERATOR,
    "all signed transactions replayed but one",
    "consistent",
    "failed",
    NOT_THE_HISTORY,
    on="3#3",
    also=["consistent"],
)
def replayed_but_one() -> Given:
    return rewritten()


@case(
    OPERATOR,
    "the same, with a peer's checkpoint at hand",
    "consistent",
    "failed",
    "the checkpoint of site-2 (peer 2)",
    also=["consistent"],
)
def replayed_against_checkpoint() -> Given:
    one = rewritten()
    one.checkpoints.append(sign(checkpoint(shown(), 40), key("peer 2")))
    return one


@case(
    OPERATOR,
    "the last entry replaced, which nobody had seen, with a peer's checkpoint at hand",
    "consistent",
    "failed",
    "signed was",
)
def tail_replaced() -> Given:
    one = shown()
    signed = sign(checkpoint(one), key("peer 1"))
    play = honest()
    other = play.ledger.replayed(len(one.logs) - 1, "")
    other.keys = dict(play.ledger.keys)
    other.nonces = dict(play.ledger.nonces)
    other.retire(3, len(other.entries))
    found = given(play, other)
    found.checkpoints.append(signed)
    return found


@case(
    OPERATOR,
    "a checkpoint of another log that a stranger signed, served by a gateway",
    "consistent",
    "unknown",
    "a gateway gave it, and anybody can sign one",
)
def strangers_checkpoint() -> Given:
    one = shown()
    one.checkpoints.append(sign(checkpoint(one), key("peer 1")))
    one.served.append(sign(checkpoint(rewritten()), key("stranger")))
    return one


@case(OPERATOR, "two logs shown to two auditors", "consistent", "failed", "two roots of 44 entries")
def two_logs() -> Given:
    one = shown()
    for log in (one, rewritten()):
        one.checkpoints.append(sign(checkpoint(log, 44), key("peer 1")))
    return one


@case(OPERATOR, "a block that is on the chain no more", "canonical", "failed", "on the chain now, expected", on="2#2")
def reorganised() -> Given:
    one = shown()
    number = one.logs[one.index_of("2#2")].block_number
    one.blocks[number] = replace(one.blocks[number], hash=block_hash(number, "other"))
    return one


@case(OPERATOR, "a block without the transaction", "canonical", "failed", "holds no transaction", on="2#2")
def not_in_block() -> Given:
    one = shown()
    number = one.logs[one.index_of("2#2")].block_number
    one.blocks[number] = replace(one.blocks[number], transactions=frozenset([bytes(32)]))
    return one


@case(
    OPERATOR,
    "a block that is not deep enough yet",
    "canonical",
    "unknown",
    "3 are asked for; look again later",
    on="4#4",
    also=["canonical"],
)
def not_deep() -> Given:
    one = shown()
    one.depth = 3
    return one


# ---- keys ----------------------------------------------------------------------------------------------------------


@case(KEYS, "an attestation signed with another's key", "canonical", "failed", "signed by")
def forged_attestation() -> Given:
    play = begun()
    play.ledger.attest(1, [Attestation(3, 1, 900_000, 100_000)], signer=key("peer 2"))
    return given(play)


@case(KEYS, "an objection signed with another's key", "canonical", "failed", "signed by", also=["report"])
def forged_objection() -> Given:
    play = begun()
    play.ledger.object(1, UpdateRef(3, 1), Reason.UNAVAILABLE, signer=key("peer 2"))
    return given(play)


@case(KEYS, "an admission that the owner did not sign", "canonical", "failed", "signed by")
def self_admitted() -> Given:
    play = begun()
    play.ledger.admit(key("stranger"), "site-stranger", by=key("stranger"))
    return given(play)


@case(KEYS, "a retirement that neither owner nor member signed", "canonical", "failed", "signed by")
def retired_by_rival() -> Given:
    play = begun()
    play.ledger.retire(3, len(play.ledger.entries), by=key("peer 1"))
    return given(play)


@case(
    KEYS,
    "a member's site changed in its admission",
    "canonical",
    "failed",
    "opened with other values",
    also=["consistent"],
)
def other_site() -> Given:
    one = shown()
    body = one.body(2)
    assert isinstance(body, PeerAdmitted)
    one.rewrite(2, replace(body, site="site-1"))
    return one


# ---- the opening ---------------------------------------------------------------------------------------------------


@case(
    OPENING,
    "the spec changed afterwards",
    "opening",
    "failed",
    "it was changed since",
    also=(*UNREPLAYED, "selection", "membership", "report"),
)
def spec_changed() -> Given:
    """Nobody is blamed for not following what the auditor was given: all that needs the spec is unknown."""
    one = shown()
    changed = one.federation.spec_bytes + b"\n[trust]\nfloor_ppm = 7\n"
    one.federation = parse_federation(changed)
    return one


@case(OPENING, "another contract's code at the address", "opening", "failed", "are not the")
def other_code() -> Given:
    one = shown()
    one.code = one.code[:-1] + bytes([one.code[-1] ^ 1])
    return one


@case(
    OPENING, "a contract deployed from other code", "canonical", "failed", "entry 0: the contract is not this version's"
)
def other_bytecode() -> Given:
    return given(begun(code=committed_artifact().bytecode[:-1] + b"\0"))


@case(OPENING, "the genesis replaced", "opening", "failed", "a store gave bytes with the CID", also=UNREPLAYED)
def genesis_replaced() -> Given:
    one, play = shown(), honest()
    other = {name: array + 1 for name, array in play.genesis.items()}
    one.blobs[Cid("raw", play.ledger.prefix.opened.genesis_content)] = b"".join(weights.encode(other))
    return one


@case(
    OPENING,
    "a genesis that the deployer committed to otherwise",
    "opening",
    "failed",
    "the genesis weights have digest",
    also=UNREPLAYED,
)
def genesis_uncommitted() -> Given:
    return given(begun(genesis_weights=lambda digest: bytes(32)))
