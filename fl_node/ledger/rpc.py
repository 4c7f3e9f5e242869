"""The ledger on an EVM chain, by JSON-RPC: typed records in and out.

``RpcReader`` reads for anybody; ``RpcLedger`` also writes, for one key. Both check on connection that they are where
the federation file says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias

from fl_node.errors import ChainUnavailable, EntryRejected, LedgerError, WrongLedger
from fl_node.ledger import calls, gas, views
from fl_node.ledger.abi import address_bytes, checksum_address
from fl_node.ledger.protocol import MOST_BLOCKS, LedgerIdentity, News, RawLog, Receipt, Recovered, UpdateState
from fl_node.ledger.reverts import translated
from fl_node.ledger.sender import Mined, Patience, Sender, TransactionSigner
from fl_node.ledger.transport import Request, Rpc, RpcError, quantity, raw_bytes
from fl_node.records import ZERO32, Attestation, LedgerHead, Parent, PeerState, Reason, Role, Update, UpdateRef
from fl_node.spec import Deployment

_SPAN_FIRST: Final = 2_000
_SPAN_MOST: Final = 500_000
_LOGS_WANTED: Final = 2_000

_Block: TypeAlias = tuple[int, bytes]  # number, hash


class RpcReader:
    """Reads one ledger; a :class:`fl_node.ledger.protocol.LedgerReader`.

    Args:
        deployment: where the ledger is; its ``rpc`` is only a hint.
        spec_digest: of the federation file's spec; None skips that check (an auditor with an address only).
        rpc: the endpoint; None takes the hint.

    Raises:
        WrongLedger: another chain id, no code at the address, another spec.
        ChainUnavailable: the endpoint does not answer.
    """

    def __init__(self, deployment: Deployment, spec_digest: bytes | None, rpc: Rpc | None = None) -> None:
        self.rpc = rpc or Rpc(deployment.rpc)
        self._address = checksum_address(address_bytes(deployment.contract))
        self._span = _SPAN_FIRST
        self._tip: tuple[bytes, int] | None = None
        self._head: LedgerHead | None = None
        self._identity, self._genesis_block = self._check(deployment, spec_digest)

    @property
    def identity(self) -> LedgerIdentity:
        """Where the ledger is and what it was opened with."""
        return self._identity

    def head(self, depth: int = 0, fresh: bool = False) -> LedgerHead:
        """One request when the chain has not moved since the last call; two or three when it has."""
        number, block_hash = tip = self._latest()
        if self._tip == (block_hash, depth) and self._head is not None and not fresh:
            return self._head
        wanted = max(self._identity.first_block, number - depth)
        block = tip if wanted == number else self._block(hex(wanted))
        return self._seen(tip, depth, wanted, block, self._view(views.state_call(), hex(wanted)))

    def head_at(self, number: int) -> LedgerHead:
        """Size and root at a block; endpoints have the state of the latest ones, archives of all.

        Raises:
            LedgerError: there is no such block, or the endpoint does not have its state.
        """
        block = self._block(hex(number))
        if block is None:
            raise LedgerError(f"{self.rpc.place} has no block {number}; use an endpoint with all blocks")
        read = views.read_state(self._view(views.state_call(), hex(number)))
        return LedgerHead(read.size, read.root, number, block[1], read.highest_round)

    def news(self, known: tuple[int, bytes] | None, depth: int = 0) -> News | None:
        """One request when there is none, two when there is; more only for many blocks or after a reorganisation."""
        tip = self._latest()
        number = tip[0]
        if known is not None and known[1] == self._hash_at(tip, depth):
            return None
        wanted = max(self._identity.first_block, number - depth)
        first = self._identity.first_block if known is None else known[0] + 1
        stop = min(wanted, first + self._span - 1)
        asked: list[Request] = [self._view_request(views.state_call(), hex(wanted))]
        if wanted != number:
            asked.append(("eth_getBlockByNumber", [hex(wanted), False]))
        if known is not None and known[0] <= wanted:
            asked.append(("eth_getBlockByNumber", [hex(known[0]), False]))
        if first <= stop:
            asked.append(self._logs_request(first, stop))
        try:
            state, *answers = self.rpc.batch(asked)
        except ChainUnavailable:
            self._span = max(1, self._span // 2)
            raise
        page = answers.pop() if first <= stop else []
        followed = self._decoded(answers.pop()) if known is not None and known[0] <= wanted else None
        block = self._decoded(answers.pop()) if answers else tip
        if isinstance(state, RpcError):
            raise translated(state) from state
        head = self._seen(tip, depth, wanted, block, raw_bytes(state))
        if known is not None and known[1] == head.block_hash:
            return None
        follows = known is None or (followed is not None and followed[1] == known[1])
        if isinstance(page, RpcError):
            # Perhaps for the range: page by page it is asked for less.
            return News(head, follows, self.logs(first, wanted))
        return News(head, follows, chain(self._page(page), self.logs(stop + 1, wanted)))

    def block_hash(self, number: int) -> bytes | None:
        """Hash of a block of the chain as it is now; None above its tip."""
        block = self._block(hex(number))
        return block[1] if block else None

    def logs(self, first_block: int, last_block: int) -> Iterator[RawLog]:
        """Logs page by page; pages shrink where the provider caps them and grow where there is little."""
        start = first_block
        while start <= last_block:
            stop = min(last_block, start + self._span - 1)
            method, wanted = self._logs_request(start, stop)
            try:
                page = self.rpc.call(method, *wanted)
            except RpcError as refused:
                if self._span == 1:
                    raise LedgerError(f"{self.rpc.place} gives no logs of block {start}: {refused}") from refused
                self._span = max(1, min(self._span, stop - start + 1) // 2)
                continue
            except ChainUnavailable:
                # Perhaps too much for its time limit: the caller's next try asks for less.
                self._span = max(1, self._span // 2)
                raise
            yield from self._page(page)
            start = stop + 1

    def peer(self, number: int) -> PeerState:
        """A member by number; LookupError if there is none."""
        return views.read_peer(self._found(views.peer_call(number), "UnknownPeer", f"peer {number}"))

    def peers(self) -> list[PeerState]:
        """All members, by number."""
        found: list[PeerState] = []
        while True:
            page = views.read_peers(self._view(views.peers_call(len(found) + 1)))
            found += page
            if len(page) < views.PAGE:
                return found

    def peer_of(self, account: str) -> PeerState | None:
        """The member that writes with this account; None if it is none."""
        number = int.from_bytes(self._view(views.number_call(account)), "big")
        return self.peer(number) if number else None

    def update(self, ref: UpdateRef) -> UpdateState:
        """An update from contract state; LookupError if there is none."""
        return views.read_update(ref, self._found(views.update_call(ref), "UnknownUpdate", f"update {ref}"))

    def balance(self, account: str) -> int:
        """Wei."""
        return quantity(self.rpc.call("eth_getBalance", account, "latest"))

    def close(self) -> None:
        """Nothing to let go of, but callers need not know."""

    # ---- below -------------------------------------------------------------------------------------------------

    def _check(self, deployment: Deployment, spec_digest: bytes | None) -> tuple[LedgerIdentity, bytes]:
        chain_id, code, *answers, first = self.rpc.batch(
            [
                ("eth_chainId", []),
                ("eth_getCode", [self._address, "latest"]),
                self._view_request(views.state_call()),
                self._view_request(views.genesis_call()),
                ("eth_getBlockByNumber", ["0x0", False]),
            ]
        )
        for answer in (chain_id, code):
            if isinstance(answer, RpcError):
                raise translated(answer) from answer
        if quantity(chain_id) != deployment.chain_id:
            raise WrongLedger(
                f"{self.rpc.place} is chain {quantity(chain_id)}; expected {deployment.chain_id}, the federation's; "
                "correct the RPC URL or take the right federation file"
            )
        if not raw_bytes(code):
            raise WrongLedger(
                f"there is no contract at {self._address} on chain {deployment.chain_id}; expected the federation's "
                "ledger; is the node still syncing, or was a development chain restarted?"
            )
        for answer in answers:
            if isinstance(answer, RpcError):
                raise WrongLedger(
                    f"the contract at {self._address} is no model ledger ({answer}); take the right federation file"
                ) from answer
        try:
            state, genesis = views.read_state(raw_bytes(answers[0])), views.read_genesis(raw_bytes(answers[1]))
        except ChainUnavailable as cause:
            raise WrongLedger(
                f"the contract at {self._address} is no model ledger: {cause}; take the right federation file"
            ) from cause
        if spec_digest is not None and state.spec_digest != spec_digest:
            raise WrongLedger(
                f"the ledger at {self._address} is of the spec with SHA-256 {state.spec_digest.hex()}; "
                f"got a federation file whose spec has {spec_digest.hex()}: it was edited, or is of another federation"
            )
        if not isinstance(first, dict) or "hash" not in first:
            raise ChainUnavailable(f"{self.rpc.place} lacks block 0; use an endpoint with all block headers")
        identity = LedgerIdentity(
            *(deployment.chain_id, self._address, deployment.first_block, state.spec_digest),
            *(*genesis, state.min_interval_s),
        )
        return identity, raw_bytes(first["hash"])

    def _latest(self) -> _Block:
        tip = self._block("latest")
        if tip is None:
            raise ChainUnavailable(f"{self.rpc.place} has no latest block; wait until it has synced")
        return tip

    def _hash_at(self, tip: _Block, depth: int) -> bytes | None:
        """Hash of the block ``depth`` below the tip, if it is known without asking."""
        if depth == 0:
            return tip[1]
        return self._head.block_hash if self._head is not None and self._tip == (tip[1], depth) else None

    def _seen(self, tip: _Block, depth: int, wanted: int, block: _Block | None, state: bytes) -> LedgerHead:
        """The head at a block, remembered for as long as the tip stays."""
        if block is None:
            raise ChainUnavailable(f"{self.rpc.place} lacks block {wanted}, below its tip {tip[0]}; try again")
        read = views.read_state(state)
        self._tip = (tip[1], depth)
        self._head = LedgerHead(read.size, read.root, wanted, block[1], read.highest_round)
        return self._head

    def _block(self, which: str) -> _Block | None:
        return self._decoded(self.rpc.call("eth_getBlockByNumber", which, False))

    def _decoded(self, block: Any) -> _Block | None:
        """Number and hash of a block's header; None for a block that the endpoint lacks."""
        if isinstance(block, RpcError):
            raise block
        if block is None:
            return None
        try:
            number, block_hash = quantity(block["number"]), raw_bytes(block["hash"])
        except (KeyError, TypeError) as cause:
            raise ChainUnavailable(f"got a malformed block from {self.rpc.place}: {str(block)[:200]}") from cause
        if number > MOST_BLOCKS or len(block_hash) != 32:
            raise ChainUnavailable(f"got a malformed block from {self.rpc.place}: number {number}")
        return number, block_hash

    def _logs_request(self, first_block: int, last_block: int) -> Request:
        return "eth_getLogs", [{"address": self._address, "fromBlock": hex(first_block), "toBlock": hex(last_block)}]

    def _page(self, page: Any) -> list[RawLog]:
        """One page's logs; the next page's span follows from how many there were."""
        if not isinstance(page, list):
            raise ChainUnavailable(f"got {str(page)[:200]} from {self.rpc.place}; expected a list of logs")
        if len(page) < _LOGS_WANTED // 2:
            self._span = min(_SPAN_MOST, self._span * 2)
        elif len(page) > 2 * _LOGS_WANTED:
            self._span = max(1, self._span // 2)
        return [_raw_log(item) for item in page if not (isinstance(item, dict) and item.get("removed"))]

    def _view_request(self, data: bytes, block: str = "latest") -> Request:
        return "eth_call", [{"to": self._address, "data": "0x" + data.hex()}, block]

    def _view(self, data: bytes, block: str = "latest") -> bytes:
        method, params = self._view_request(data, block)
        try:
            return raw_bytes(self.rpc.call(method, *params))
        except RpcError as refused:
            raise translated(refused) from refused

    def _found(self, data: bytes, missing: str, what: str) -> bytes:
        try:
            return self._view(data)
        except EntryRejected as refused:
            if refused.name == missing:
                raise LookupError(f"no {what} on ledger {self._address}") from refused
            raise


class RpcLedger(RpcReader):
    """Reads and writes one ledger with one key; a :class:`fl_node.ledger.protocol.Ledger`.

    Args:
        signer: the key; see :mod:`fl_node.keys`.
        state: folder for stored transactions; None keeps them in memory.
        patience: how long to wait for blocks.

    Raises:
        KeyInUse: another process signs with this key.
        As :class:`RpcReader`.
    """

    def __init__(
        self,
        deployment: Deployment,
        spec_digest: bytes | None,
        signer: TransactionSigner,
        state: Path | None = None,
        rpc: Rpc | None = None,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(deployment, spec_digest, rpc)
        self._sender = Sender(self.rpc, signer, deployment.chain_id, self._genesis_block, state, patience)

    @property
    def account(self) -> str:
        """Address that writes."""
        return self._sender.account

    def recover(self) -> list[Recovered]:
        """Settle what a crash left open or a reorganisation dropped."""
        return [
            Recovered(done.label, done.outcome, self._receipt(done.mined) if done.mined else None, done.error)
            for done in self._sender.recover()
        ]

    def publish(self, update: Update, parents: Sequence[Parent]) -> Receipt:
        """Record an update."""
        limit = gas.publish(self._size(), update, parents)
        return self._write(calls.publish(update, parents), limit, f"publish sequence {update.sequence}")

    def attest(self, evidence: bytes, items: Sequence[Attestation]) -> Receipt:
        """Attest to updates of others."""
        named = ", ".join(f"{item.peer}#{item.sequence}" for item in items)
        return self._write(calls.attest(evidence, items), gas.attest(self._size(), items), f"attest {named}")

    def object(self, target: UpdateRef, reason: Reason, evidence: bytes = ZERO32) -> Receipt:
        """Object to an update."""
        return self._write(calls.object_to(target, reason, evidence), gas.small(self._size()), f"object {target}")

    def announce(self, epoch: int, recipient_key: bytes, tls_pin: bytes, endpoint: str) -> Receipt:
        """Announce keys and where content is served."""
        limit = gas.small(self._size(), len(endpoint.encode()))
        return self._write(calls.announce(epoch, recipient_key, tls_pin, endpoint), limit, f"announce epoch {epoch}")

    def admit(self, account: str, site: str, roles: Role = Role.ALL) -> Receipt:
        """Admit a member (owner only)."""
        return self._write(calls.admit(account, site, roles), gas.small(self._size()), f"admit {account}")

    def retire(self, account: str, reason: str, from_index: int) -> Receipt:
        """Retire a member."""
        limit = gas.small(self._size(), len(reason.encode()))
        return self._write(calls.retire(account, reason, from_index), limit, f"retire {account}")

    def close(self) -> None:
        """Let go of the key."""
        self._sender.close()

    def _size(self) -> int:
        """Size of the log as last seen: enough for a gas limit."""
        return self._head.size if self._head else self.head().size

    def _write(self, data: bytes, limit: int, label: str) -> Receipt:
        return self._receipt(self._sender.send(self._address, data, limit, label))

    def _receipt(self, mined: Mined) -> Receipt:
        logs = [_raw_log(log) for log in mined.logs if log["address"].lower() == self._address.lower()]
        if not logs:
            raise LedgerError(
                f"transaction 0x{mined.tx_hash.hex()} made no entry at {self._address}; check the endpoint"
            )
        index = int.from_bytes(logs[0].topics[1], "big")
        return Receipt(index, mined.tx_hash, mined.block_number, mined.block_hash, mined.gas_used)


def _raw_log(item: Any) -> RawLog:
    try:
        log = RawLog(
            quantity(item["blockNumber"]),
            raw_bytes(item["blockHash"]),
            raw_bytes(item["transactionHash"]),
            tuple([raw_bytes(topic) for topic in item["topics"]]),
            raw_bytes(item["data"]),
        )
    except (KeyError, TypeError) as cause:
        raise ChainUnavailable(f"got a malformed log from the endpoint: {str(item)[:200]}") from cause
    if log.fault is not None:
        raise ChainUnavailable(f"got a malformed log from the endpoint: {log.fault}")
    return log
