// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

import {IModelLedger} from "./IModelLedger.sol";
import {MerkleLog} from "./MerkleLog.sol";

/// @title ModelLedger
/// @notice See {IModelLedger}, which is the documentation.
/// @dev Nothing is immutable, so that the code on chain equals the compiled code byte for byte. Everything the hot path
///      writes fits four slots: the log's head, the publisher, and two for the update.
contract ModelLedger is IModelLedger, Ownable2Step {
    using MerkleLog for MerkleLog.Frontier;

    uint8 private constant PUBLISH = 1;
    uint8 private constant ATTEST = 2;
    uint8 private constant ALL_ROLES = 7;
    uint8 private constant WITHDRAWN = 4;
    uint32 private constant PPM = 1_000_000;

    uint256 private constant MAX_PARENTS = 64;
    uint256 private constant MAX_ITEMS = 64;
    uint256 private constant MAX_MEMBERS = 256;
    uint256 private constant MAX_BYTES = 256;
    uint256 private constant MAX_PAGE = 256;

    /// @dev One slot.
    struct Head {
        uint64 size;
        uint32 highestRound;
        uint32 members;
        uint32 minInterval;
    }

    /// @dev One slot. `number` 0: never a member.
    struct PeerSlot {
        uint32 number;
        uint32 sequence;
        uint32 round;
        uint64 lastEntry;
        uint40 lastTime;
        uint32 epoch;
        uint8 roles;
        bool retired;
    }

    /// @dev What is rarely read of a peer.
    struct PeerRecord {
        address account;
        uint64 retiredFrom;
        bytes32 site;
    }

    /// @dev Two slots. `content` 0: no such update.
    struct UpdateSlot {
        bytes32 content;
        uint32 round;
        uint32 score;
        uint40 time;
        uint32 trainSamples;
        uint32 testSamples;
        uint64 entry;
        uint8 flags;
        uint8 encoding;
    }

    Head private _head;
    MerkleLog.Frontier private _frontier;
    mapping(address account => PeerSlot) private _peers;
    mapping(uint32 number => PeerRecord) private _records;
    mapping(uint256 key => UpdateSlot) private _updates;
    /// @dev Bitmaps over sequences, see `_mark`. A peer's attestations of one publisher share a slot for 256 sequences.
    mapping(uint256 key => uint256) private _attested;
    mapping(uint256 key => uint256) private _objected;

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
        Head memory head = Head({size: 0, highestRound: 0, members: 0, minInterval: minInterval});
        _append(
            head,
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
            _admit(head, members[i].account, members[i].site, members[i].roles);
        }
        _head = head;
    }

    // ---------------------------------------------------------------------------------------------------- membership

    /// @inheritdoc IModelLedger
    function admit(address account, bytes32 site, uint8 roles) external onlyOwner {
        Head memory head = _head;
        _admit(head, account, site, roles);
        _head = head;
    }

    /// @inheritdoc IModelLedger
    function retire(address account, string calldata reason, uint64 fromIndex) external {
        if (msg.sender != owner() && msg.sender != account) revert NotOwnerNorSelf(msg.sender, owner(), account);
        PeerSlot memory slot = _member(account);
        Head memory head = _head;
        if (fromIndex > head.size) revert BeyondLog(fromIndex, head.size);
        _checkLength(bytes(reason).length, 0, MAX_BYTES);
        _peers[account].retired = true;
        _records[slot.number].retiredFrom = fromIndex;
        bytes memory entry =
            abi.encode(PeerRetired.selector, head.size, slot.number, block.timestamp, fromIndex, reason);
        _rebase(entry, 3, 5, 1);
        _append(head, entry, 3);
        _head = head;
    }

    /// @inheritdoc IModelLedger
    function announce(uint32 epoch, bytes32 recipientKey, bytes32 tlsPin, string calldata endpoint) external {
        PeerSlot memory slot = _member(msg.sender);
        if (epoch != slot.epoch + 1) revert EpochNotNext(epoch, slot.epoch + 1);
        _checkLength(bytes(endpoint).length, 0, MAX_BYTES);
        _peers[msg.sender].epoch = epoch;
        Head memory head = _head;
        bytes memory entry = abi.encode(
            PeerAnnounced.selector, head.size, slot.number, block.timestamp, epoch, recipientKey, tlsPin, endpoint
        );
        _rebase(entry, 3, 7, 1);
        _append(head, entry, 3);
        _head = head;
    }

    // ------------------------------------------------------------------------------------------------------- updates

    /// @inheritdoc IModelLedger
    function publish(Update calldata update_, Parent[] calldata parents) external {
        PeerSlot memory slot = _member(msg.sender, PUBLISH);
        Head memory head = _head;
        _checkUpdate(update_, slot, head);
        _checkParents(parents);

        bytes memory entry = abi.encode(
            UpdatePublished.selector, head.size, slot.number, update_.round, block.timestamp, update_, parents
        );
        _rebase(entry, 4, 5, 2);

        _updates[_key(slot.number, update_.sequence)] = UpdateSlot({
            content: update_.content,
            round: update_.round,
            score: update_.score,
            time: uint40(block.timestamp),
            trainSamples: update_.trainSamples,
            testSamples: update_.testSamples,
            entry: head.size,
            flags: update_.flags,
            encoding: update_.encoding
        });
        slot.sequence = update_.sequence;
        slot.round = update_.round;
        slot.lastEntry = head.size;
        slot.lastTime = uint40(block.timestamp);
        _peers[msg.sender] = slot;
        if (update_.round > head.highestRound) head.highestRound = update_.round;
        _append(head, entry, 4);
        _head = head;
    }

    /// @inheritdoc IModelLedger
    function attest(bytes32 evidence, Attestation[] calldata items) external {
        uint32 number = _member(msg.sender, ATTEST).number;
        _checkLength(items.length, 1, MAX_ITEMS);
        for (uint256 i = 0; i < items.length; ++i) {
            Attestation calldata item = items[i];
            if (item.peer == number) revert OwnUpdate(number, item.sequence);
            _checkScore(item.score);
            _checkScore(item.baseScore);
            _contentOf(item.peer, item.sequence);
            if (_mark(_attested, number, item.peer, item.sequence)) {
                revert AlreadyAttested(number, item.peer, item.sequence);
            }
        }
        Head memory head = _head;
        bytes memory entry =
            abi.encode(UpdatesAttested.selector, head.size, number, block.timestamp, evidence, items);
        _rebase(entry, 3, 5, 1);
        _append(head, entry, 3);
        _head = head;
    }

    /// @inheritdoc IModelLedger
    function object(uint32 target, uint32 sequence, uint8 reason, bytes32 evidence) external {
        uint32 number = _member(msg.sender, PUBLISH | ATTEST).number;
        _contentOf(target, sequence);
        (uint8 least, uint8 most) = target == number ? (WITHDRAWN, WITHDRAWN) : (1, WITHDRAWN - 1);
        if (reason < least || reason > most) revert ReasonOutOfRange(reason, least, most);
        if (_mark(_objected, number, target, sequence)) revert AlreadyObjected(number, target, sequence);
        Head memory head = _head;
        _append(
            head,
            abi.encode(
                UpdateObjected.selector, head.size, number, block.timestamp, target, sequence, reason, evidence
            ),
            3
        );
        _head = head;
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
        Head memory head = _head;
        _append(head, abi.encode(OwnerChanged.selector, head.size, block.timestamp, previous, newOwner), 2);
        _head = head;
    }

    // --------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IModelLedger
    function size() external view returns (uint64) {
        return _head.size;
    }

    /// @inheritdoc IModelLedger
    function root() public view returns (bytes32) {
        return _frontier.root(_head.size);
    }

    /// @inheritdoc IModelLedger
    function state() external view returns (State memory) {
        Head memory head = _head;
        return State({
            size: head.size,
            root: root(),
            highestRound: head.highestRound,
            members: head.members,
            minInterval: head.minInterval,
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
        return _peers[account].number;
    }

    /// @inheritdoc IModelLedger
    function peer(uint32 number) external view returns (PeerState memory) {
        uint32 members = _head.members;
        if (number == 0 || number > members) revert UnknownPeer(number, members);
        return _peerState(number);
    }

    /// @inheritdoc IModelLedger
    function peers(uint32 start, uint32 limit) external view returns (PeerState[] memory page) {
        (uint256 first, uint256 count) = _page(start, limit, _head.members);
        page = new PeerState[](count);
        for (uint256 i = 0; i < count; ++i) {
            page[i] = _peerState(uint32(first + i));
        }
    }

    /// @inheritdoc IModelLedger
    function update(uint32 number, uint32 sequence) external view returns (UpdateState memory) {
        _contentOf(number, sequence);
        return _updateState(number, sequence);
    }

    /// @inheritdoc IModelLedger
    function updates(uint32 number, uint32 start, uint32 limit) external view returns (UpdateState[] memory page) {
        (uint256 first, uint256 count) = _page(start, limit, _peers[_records[number].account].sequence);
        page = new UpdateState[](count);
        for (uint256 i = 0; i < count; ++i) {
            page[i] = _updateState(number, uint32(first + i));
        }
    }

    /// @inheritdoc IModelLedger
    function attested(uint32 by, uint32 target, uint32 sequence) external view returns (bool) {
        return _isMarked(_attested, by, target, sequence);
    }

    /// @inheritdoc IModelLedger
    function objected(uint32 by, uint32 target, uint32 sequence) external view returns (bool) {
        return _isMarked(_objected, by, target, sequence);
    }

    // ------------------------------------------------------------------------------------------------------- the log

    /// @dev Emit an entry and add its leaf to the tree. The caller writes `head` back.
    /// @param head The log's head; its size grows by one.
    /// @param entry abi.encode(topics ..., data ...): exactly the log, so that it is encoded once for event and leaf.
    /// @param topics Number of topics.
    function _append(Head memory head, bytes memory entry, uint256 topics) private {
        _frontier.append(head.size, entry);
        ++head.size;
        MerkleLog.emitLog(entry, topics);
    }

    /// @dev Offsets of dynamic arguments count from the start of the data, abi.encode counted from the first topic.
    /// @param entry As for `_append`.
    /// @param topics Number of topics.
    /// @param word First word of the entry that is an offset.
    /// @param count Number of such words in a row.
    function _rebase(bytes memory entry, uint256 topics, uint256 word, uint256 count) private pure {
        assembly ("memory-safe") {
            let at := add(add(entry, 32), mul(word, 32))
            for { let end := add(at, mul(count, 32)) } lt(at, end) { at := add(at, 32) } {
                mstore(at, sub(mload(at), mul(topics, 32)))
            }
        }
    }

    // -------------------------------------------------------------------------------------------------------- checks

    function _admit(Head memory head, address account, bytes32 site, uint8 roles) private {
        if (account == address(0)) revert AccountZero(account);
        if (roles == 0 || roles > ALL_ROLES) revert RolesOutOfRange(roles, 1, ALL_ROLES);
        PeerSlot storage slot = _peers[account];
        if (slot.number != 0) revert AccountKnown(account, slot.number);
        uint32 number = ++head.members;
        slot.number = number;
        slot.roles = roles;
        slot.lastEntry = head.size;
        _records[number] = PeerRecord({account: account, retiredFrom: 0, site: site});
        _append(
            head, abi.encode(PeerAdmitted.selector, head.size, number, block.timestamp, account, site, roles), 3
        );
    }

    function _member(address account) private view returns (PeerSlot memory slot) {
        slot = _peers[account];
        if (slot.number == 0) revert NotMember(account);
        if (slot.retired) revert PeerIsRetired(slot.number, _records[slot.number].retiredFrom);
    }

    function _member(address account, uint8 anyOf) private view returns (PeerSlot memory slot) {
        slot = _member(account);
        if (slot.roles & anyOf == 0) revert RoleMissing(slot.number, slot.roles, anyOf);
    }

    function _checkUpdate(Update calldata given, PeerSlot memory slot, Head memory head) private view {
        if (given.sequence != slot.sequence + 1) revert SequenceNotNext(given.sequence, slot.sequence + 1);
        if (given.round <= slot.round || given.round > head.highestRound + 1) {
            revert RoundOutOfRange(given.round, slot.round + 1, head.highestRound + 1);
        }
        if (given.seen <= slot.lastEntry || given.seen > head.size) {
            revert SeenOutOfRange(given.seen, slot.lastEntry + 1, head.size);
        }
        if (given.sealedAt > head.size) revert BeyondLog(given.sealedAt, head.size);
        if (slot.sequence != 0 && block.timestamp < uint256(slot.lastTime) + head.minInterval) {
            revert TooSoon(uint64(block.timestamp), uint64(slot.lastTime) + head.minInterval);
        }
        if (given.content == 0) revert ContentZero(given.sequence);
        _checkScore(given.score);
        _checkScore(given.baseScore);
        _checkLength(given.extra.length, 0, MAX_BYTES);
    }

    function _checkParents(Parent[] calldata parents) private view {
        uint256 count = parents.length;
        _checkLength(count, 0, MAX_PARENTS);
        if (count == 0) return;
        uint256 previous = 0;
        uint256 sum = 0;
        for (uint256 i = 0; i < count; ++i) {
            Parent calldata parent = parents[i];
            uint256 key = _key(parent.peer, parent.sequence);
            if (key <= previous) revert ParentsNotAscending(i, uint64(key), uint64(previous));
            previous = key;
            bytes4 expected = bytes4(_contentOf(parent.peer, parent.sequence));
            if (parent.tag != expected) revert TagMismatch(parent.peer, parent.sequence, parent.tag, expected);
            sum += parent.share;
        }
        if (sum != PPM) revert SharesNotWhole(sum, PPM);
    }

    function _checkScore(uint32 score) private pure {
        if (score > PPM) revert ScoreTooHigh(score, PPM);
    }

    function _checkLength(uint256 got, uint256 least, uint256 most) private pure {
        if (got < least || got > most) revert LengthOutOfRange(got, least, most);
    }

    // ------------------------------------------------------------------------------------------------------- storage

    function _key(uint32 number, uint32 sequence) private pure returns (uint256) {
        return uint256(number) << 32 | sequence;
    }

    function _contentOf(uint32 number, uint32 sequence) private view returns (bytes32 content) {
        content = _updates[_key(number, sequence)].content;
        if (content == 0) revert UnknownUpdate(number, sequence);
    }

    /// @dev Where (by, target, sequence) has its bit: a key for 256 sequences, and the bit.
    function _bit(uint32 by, uint32 target, uint32 sequence) private pure returns (uint256 key, uint256 bit) {
        return (uint256(by) << 64 | uint256(target) << 32 | sequence >> 8, 1 << (sequence & 255));
    }

    /// @dev Sets the bit; returns whether it was set before.
    function _mark(mapping(uint256 => uint256) storage map, uint32 by, uint32 target, uint32 sequence)
        private
        returns (bool)
    {
        (uint256 key, uint256 bit) = _bit(by, target, sequence);
        uint256 marks = map[key];
        map[key] = marks | bit;
        return marks & bit != 0;
    }

    function _isMarked(mapping(uint256 => uint256) storage map, uint32 by, uint32 target, uint32 sequence)
        private
        view
        returns (bool)
    {
        (uint256 key, uint256 bit) = _bit(by, target, sequence);
        return map[key] & bit != 0;
    }

    /// @dev Numbers from `start` (at least 1) to `last`, at most `limit` of them.
    function _page(uint32 start, uint32 limit, uint32 last) private pure returns (uint256 first, uint256 count) {
        _checkLength(limit, 0, MAX_PAGE);
        first = start == 0 ? 1 : start;
        count = first > last ? 0 : last - first + 1;
        if (count > limit) count = limit;
    }

    function _peerState(uint32 number) private view returns (PeerState memory) {
        PeerRecord memory record = _records[number];
        PeerSlot memory slot = _peers[record.account];
        return PeerState({
            number: number,
            account: record.account,
            site: record.site,
            roles: slot.roles,
            sequence: slot.sequence,
            round: slot.round,
            lastEntry: slot.lastEntry,
            lastTime: slot.lastTime,
            epoch: slot.epoch,
            retired: slot.retired,
            retiredFrom: record.retiredFrom
        });
    }

    function _updateState(uint32 number, uint32 sequence) private view returns (UpdateState memory) {
        UpdateSlot memory slot = _updates[_key(number, sequence)];
        return UpdateState({
            content: slot.content,
            round: slot.round,
            score: slot.score,
            time: slot.time,
            trainSamples: slot.trainSamples,
            testSamples: slot.testSamples,
            entry: slot.entry,
            flags: slot.flags,
            encoding: slot.encoding
        });
    }
}
