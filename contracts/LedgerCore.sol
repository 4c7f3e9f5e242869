// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

import {IModelLedger} from "./IModelLedger.sol";
import {MerkleLog} from "./MerkleLog.sol";
import {HeadLib, HeadWord, PeerLib, PeerWord} from "./Words.sol";

/// @title LedgerCore
/// @notice The log itself, who owns it and who may write to it. See {IModelLedger}, which is the documentation.
/// @dev Nothing is immutable, so that the code on chain equals the compiled code byte for byte.
abstract contract LedgerCore is IModelLedger, Ownable2Step {
    using MerkleLog for MerkleLog.Frontier;

    uint8 private constant ALL_ROLES = 7;
    uint256 private constant MAX_MEMBERS = 256;
    uint256 internal constant MAX_BYTES = 256;
    uint256 private constant MAX_PAGE = 256;

    /// @dev What is rarely read of a peer.
    struct PeerRecord {
        address account;
        uint64 retiredFrom;
        bytes32 site;
    }

    HeadWord internal _head;
    MerkleLog.Frontier private _frontier;
    mapping(address account => PeerWord) internal _peers;
    mapping(uint32 number => PeerRecord) internal _records;

    address private _owner;
    address private _pendingOwner;
    bytes32 private _specDigest;
    bytes32 private _genesisContent;
    bytes32 private _genesisWeights;
    uint8 private _genesisFlags;

    /// @param specDigest_ SHA-256 of the bytes of the spec.
    /// @param genesisContent SHA-256 digest inside the CID of the initial weights.
    /// @param genesisWeights Digest of the tensors of the initial weights.
    /// @param genesisFlags Bit 0: the genesis CID is a dag-pb root (else raw).
    /// @param minInterval Least number of seconds between two updates of a peer.
    /// @param owner_ Who may admit and retire.
    /// @param members At most 256 genesis members, who become peers 1, 2, 3, ...
    constructor(
        bytes32 specDigest_,
        bytes32 genesisContent,
        bytes32 genesisWeights,
        uint8 genesisFlags,
        uint32 minInterval,
        address owner_,
        Member[] memory members
    ) Ownable(owner_) {
        _checkLength(members.length, 0, MAX_MEMBERS);
        _specDigest = specDigest_;
        _genesisContent = genesisContent;
        _genesisWeights = genesisWeights;
        _genesisFlags = genesisFlags;
        HeadWord head = _append(
            HeadLib.make(minInterval),
            abi.encode(
                LedgerOpened.selector,
                uint256(0),
                block.timestamp,
                block.chainid,
                address(this),
                specDigest_,
                genesisContent,
                genesisWeights,
                genesisFlags,
                minInterval,
                owner_
            ),
            2
        );
        for (uint256 i = 0; i < members.length; ++i) {
            head = _admit(head, members[i].account, members[i].site, members[i].roles);
        }
        _head = head;
    }

    // ---------------------------------------------------------------------------------------------------- membership

    /// @inheritdoc IModelLedger
    function admit(address account, bytes32 site, uint8 roles) external onlyOwner {
        _head = _admit(_head, account, site, roles);
    }

    /// @inheritdoc IModelLedger
    function retire(address account, string calldata reason, uint64 fromIndex) external {
        if (msg.sender != owner() && msg.sender != account) revert NotOwnerNorSelf(msg.sender, owner(), account);
        PeerWord slot = _member(account);
        HeadWord head = _head;
        if (fromIndex > head.size()) revert BeyondLog(fromIndex, head.size());
        _checkLength(bytes(reason).length, 0, MAX_BYTES);
        _peers[account] = slot.asRetired();
        _records[slot.number()].retiredFrom = fromIndex;
        bytes memory entry =
            abi.encode(PeerRetired.selector, head.size(), slot.number(), block.timestamp, fromIndex, reason);
        _rebase(entry, 3, 5, 1);
        _head = _append(head, entry, 3);
    }

    /// @inheritdoc IModelLedger
    function announce(uint32 epoch, bytes32 recipientKey, bytes32 tlsPin, string calldata endpoint) external {
        PeerWord slot = _member(msg.sender);
        if (epoch != slot.epoch() + 1) revert EpochNotNext(epoch, slot.epoch() + 1);
        _checkLength(bytes(endpoint).length, 0, MAX_BYTES);
        _peers[msg.sender] = slot.withEpoch(epoch);
        HeadWord head = _head;
        bytes memory entry = abi.encode(
            PeerAnnounced.selector, head.size(), slot.number(), block.timestamp, epoch, recipientKey, tlsPin, endpoint
        );
        _rebase(entry, 3, 7, 1);
        _head = _append(head, entry, 3);
    }

    // ----------------------------------------------------------------------------------------------------- ownership
    // OpenZeppelin's rules (two steps, so that a mistyped owner cannot take a ledger away), but no OpenZeppelin events:
    // every log of this address is a leaf, and the change of owner is one of ours.

    /// @notice Who may admit and retire.
    function owner() public view override returns (address) {
        return _owner;
    }

    /// @notice Who becomes owner by calling `acceptOwnership`. Zero: nobody.
    function pendingOwner() public view override returns (address) {
        return _pendingOwner;
    }

    /// @notice Offer the ownership. By the owner. The offer can be replaced, or taken back with the zero account.
    /// @param newOwner Who may accept.
    function transferOwnership(address newOwner) public override onlyOwner {
        // slither-disable-next-line missing-zero-check
        _pendingOwner = newOwner;
    }

    /// @notice Refused for ever: a ledger without an owner could not replace a lost key.
    function renounceOwnership() public view override onlyOwner {
        revert OwnerCannotRenounce(owner());
    }

    /// @dev Called by OpenZeppelin's constructor, before entry 0, and by `acceptOwnership`.
    function _transferOwnership(address newOwner) internal override {
        address previous = _owner;
        _owner = newOwner;
        if (previous == address(0)) return;
        _pendingOwner = address(0);
        HeadWord head = _head;
        bytes memory entry = abi.encode(OwnerChanged.selector, head.size(), block.timestamp, previous, newOwner);
        _head = _append(head, entry, 2);
    }

    // --------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IModelLedger
    function size() external view returns (uint64) {
        return _head.size();
    }

    /// @inheritdoc IModelLedger
    function root() public view returns (bytes32) {
        return _frontier.root(_head.size());
    }

    /// @inheritdoc IModelLedger
    function state() external view returns (State memory) {
        HeadWord head = _head;
        return State({
            size: head.size(),
            root: root(),
            highestRound: head.highestRound(),
            members: head.members(),
            minInterval: head.minInterval(),
            blockNumber: uint64(block.number),
            blockTime: uint64(block.timestamp),
            chainId: block.chainid,
            specDigest: _specDigest,
            owner: owner()
        });
    }

    /// @inheritdoc IModelLedger
    function specDigest() external view returns (bytes32) {
        return _specDigest;
    }

    /// @inheritdoc IModelLedger
    function genesis() external view returns (bytes32 content, bytes32 weights, uint8 flags) {
        return (_genesisContent, _genesisWeights, _genesisFlags);
    }

    /// @inheritdoc IModelLedger
    function numberOf(address account) external view returns (uint32) {
        return _peers[account].number();
    }

    /// @inheritdoc IModelLedger
    function peer(uint32 number) external view returns (PeerState memory) {
        uint32 members = _head.members();
        if (number == 0 || number > members) revert UnknownPeer(number, members);
        return _peerState(number);
    }

    /// @inheritdoc IModelLedger
    function peers(uint32 start, uint32 limit) external view returns (PeerState[] memory page) {
        (uint256 first, uint256 count) = _page(start, limit, _head.members());
        page = new PeerState[](count);
        for (uint256 i = 0; i < count; ++i) {
            page[i] = _peerState(uint32(first + i));
        }
    }

    // ------------------------------------------------------------------------------------------------------- the log

    /// @dev Emit an entry and add its leaf to the tree.
    /// @param head The log's head.
    /// @param entry abi.encode(topics ..., data ...): exactly the log, so that it is encoded once for event and leaf.
    /// @param topics Number of topics.
    /// @return The head with this entry, for the caller to store.
    function _append(HeadWord head, bytes memory entry, uint256 topics) internal returns (HeadWord) {
        _frontier.append(head.size(), entry);
        MerkleLog.emitLog(entry, topics);
        return head.withEntry();
    }

    /// @dev Offsets of dynamic arguments count from the start of the data, abi.encode counted from the first topic.
    /// @param entry As for `_append`.
    /// @param topics Number of topics.
    /// @param word First word of the entry that is an offset.
    /// @param count Number of such words in a row.
    function _rebase(bytes memory entry, uint256 topics, uint256 word, uint256 count) internal pure {
        assembly ("memory-safe") {
            let at := add(add(entry, 32), mul(word, 32))
            for { let end := add(at, mul(count, 32)) } lt(at, end) { at := add(at, 32) } {
                mstore(at, sub(mload(at), mul(topics, 32)))
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------- members

    function _admit(HeadWord head, address account, bytes32 site, uint8 roles) private returns (HeadWord) {
        if (account == address(0)) revert AccountZero(account);
        if (roles == 0 || roles > ALL_ROLES) revert RolesOutOfRange(roles, 1, ALL_ROLES);
        uint32 known = _peers[account].number();
        if (known != 0) revert AccountKnown(account, known);
        head = head.withMember();
        uint32 number = head.members();
        _peers[account] = PeerLib.make(number, roles, head.size());
        _records[number] = PeerRecord({account: account, retiredFrom: 0, site: site});
        bytes memory entry =
            abi.encode(PeerAdmitted.selector, head.size(), number, block.timestamp, account, site, roles);
        return _append(head, entry, 3);
    }

    function _member(address account) internal view returns (PeerWord slot) {
        slot = _peers[account];
        if (slot.number() == 0) revert NotMember(account);
        if (slot.retired()) revert PeerIsRetired(slot.number(), _records[slot.number()].retiredFrom);
    }

    function _member(address account, uint8 anyOf) internal view returns (PeerWord slot) {
        slot = _member(account);
        if (slot.roles() & anyOf == 0) revert RoleMissing(slot.number(), slot.roles(), anyOf);
    }

    function _peerState(uint32 number) private view returns (PeerState memory) {
        PeerRecord memory record = _records[number];
        PeerWord slot = _peers[record.account];
        return PeerState({
            number: number,
            account: record.account,
            site: record.site,
            roles: slot.roles(),
            sequence: slot.sequence(),
            round: slot.round(),
            lastEntry: slot.lastEntry(),
            lastTime: slot.lastTime(),
            epoch: slot.epoch(),
            retired: slot.retired(),
            retiredFrom: record.retiredFrom
        });
    }

    /// @dev Numbers from `start` (at least 1) to `last`, at most `limit` of them.
    function _page(uint32 start, uint32 limit, uint32 last) internal pure returns (uint256 first, uint256 count) {
        _checkLength(limit, 0, MAX_PAGE);
        first = start == 0 ? 1 : start;
        count = first > last ? 0 : last - first + 1;
        if (count > limit) count = limit;
    }

    function _checkLength(uint256 got, uint256 least, uint256 most) internal pure {
        if (got < least || got > most) revert LengthOutOfRange(got, least, most);
    }
}
