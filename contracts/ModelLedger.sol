// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelLedger} from "./IModelLedger.sol";
import {LedgerCore} from "./LedgerCore.sol";
import {UpdateCodec} from "./UpdateCodec.sol";
import {HeadWord, PeerWord, UpdateLib, UpdateWord} from "./Words.sol";

/// @title ModelLedger
/// @notice Updates, and what others say of them. See {IModelLedger}, which is the documentation.
/// @dev What publishing writes fits four slots and one of the tree: the log's head, the publisher, two for the update.
contract ModelLedger is LedgerCore {
    uint8 private constant PUBLISH = 1;
    uint8 private constant ATTEST = 2;
    uint8 private constant WITHDRAWN = 4;
    uint32 private constant PPM = 1_000_000;

    uint256 private constant MAX_PARENTS = 64;
    uint256 private constant MAX_ITEMS = 64;

    /// @dev `content` 0: no such update.
    struct UpdateRecord {
        bytes32 content;
        UpdateWord word;
    }

    mapping(uint256 key => UpdateRecord) private _updates;
    /// @dev Bitmaps over sequences, see `_mark`. A peer's attestations of one publisher share a slot for 256 sequences.
    mapping(uint256 key => uint256) private _attested;
    mapping(uint256 key => uint256) private _objected;

    constructor(
        bytes32 specDigest_,
        bytes32 genesisContent,
        bytes32 genesisWeights,
        uint8 genesisFlags,
        uint32 minInterval,
        address owner_,
        Member[] memory members
    ) LedgerCore(specDigest_, genesisContent, genesisWeights, genesisFlags, minInterval, owner_, members) {}

    // ------------------------------------------------------------------------------------------------------- updates

    /// @inheritdoc IModelLedger
    function publish(Update calldata update_, Parent[] calldata parents) external {
        PeerWord slot = _member(msg.sender, PUBLISH);
        HeadWord head = _head;
        _checkLength(parents.length, 0, MAX_PARENTS);
        bytes memory entry = UpdateCodec.encode(head.size(), slot.number(), update_, parents);
        Update memory given = UpdateCodec.fixedPart(entry);
        _checkUpdate(given, slot, head);
        _checkLength(UpdateCodec.extraLength(entry), 0, MAX_BYTES);
        _checkParents(entry);

        UpdateRecord storage record = _updates[_key(slot.number(), given.sequence)];
        record.content = given.content;
        record.word = UpdateLib.make(
            given.round,
            given.score,
            block.timestamp,
            given.trainSamples,
            given.testSamples,
            head.size(),
            given.flags,
            given.encoding
        );
        _peers[msg.sender] = slot.withUpdate(given.sequence, given.round, head.size(), block.timestamp);
        if (given.round > head.highestRound()) head = head.withRound(given.round);
        _head = _append(head, entry, 4);
    }

    /// @inheritdoc IModelLedger
    function attest(bytes32 evidence, Attestation[] calldata items) external {
        uint32 number = _member(msg.sender, ATTEST).number();
        _checkLength(items.length, 1, MAX_ITEMS);
        for (uint256 i = 0; i < items.length; ++i) {
            Attestation calldata item = items[i];
            if (item.peer == number) revert OwnUpdate(number, item.sequence);
            _checkScore(item.score);
            _checkScore(item.baseScore);
            _contentOf(_key(item.peer, item.sequence));
            if (_mark(_attested, number, item.peer, item.sequence)) {
                revert AlreadyAttested(number, item.peer, item.sequence);
            }
        }
        HeadWord head = _head;
        bytes memory entry = abi.encode(UpdatesAttested.selector, head.size(), number, block.timestamp, evidence, items);
        _rebase(entry, 3, 5, 1);
        _head = _append(head, entry, 3);
    }

    /// @inheritdoc IModelLedger
    function object(uint32 target, uint32 sequence, uint8 reason, bytes32 evidence) external {
        uint32 number = _member(msg.sender, PUBLISH | ATTEST).number();
        _contentOf(_key(target, sequence));
        (uint8 least, uint8 most) = target == number ? (WITHDRAWN, WITHDRAWN) : (1, WITHDRAWN - 1);
        if (reason < least || reason > most) revert ReasonOutOfRange(reason, least, most);
        if (_mark(_objected, number, target, sequence)) revert AlreadyObjected(number, target, sequence);
        HeadWord head = _head;
        bytes memory entry = abi.encode(
            UpdateObjected.selector, head.size(), number, block.timestamp, target, sequence, reason, evidence
        );
        _head = _append(head, entry, 3);
    }

    // --------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IModelLedger
    function update(uint32 number, uint32 sequence) external view returns (UpdateState memory) {
        _contentOf(_key(number, sequence));
        return _updateState(number, sequence);
    }

    /// @inheritdoc IModelLedger
    function updates(uint32 number, uint32 start, uint32 limit) external view returns (UpdateState[] memory page) {
        (uint256 first, uint256 count) = _page(start, limit, _peers[_records[number].account].sequence());
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

    // -------------------------------------------------------------------------------------------------------- checks

    function _checkUpdate(Update memory given, PeerWord slot, HeadWord head) private view {
        // In 256 bits no sum of stored fields overflows.
        unchecked {
            uint256 nextSequence = uint256(slot.sequence()) + 1;
            if (given.sequence != nextSequence) revert SequenceNotNext(given.sequence, uint32(nextSequence));
            uint256 lastRound = uint256(head.highestRound()) + 1;
            if (given.round <= slot.round() || given.round > lastRound) {
                revert RoundOutOfRange(given.round, slot.round() + 1, uint32(lastRound));
            }
            if (given.seen <= slot.lastEntry() || given.seen > head.size()) {
                revert SeenOutOfRange(given.seen, slot.lastEntry() + 1, head.size());
            }
            if (given.sealedAt > head.size()) revert BeyondLog(given.sealedAt, head.size());
            uint256 earliest = uint256(slot.lastTime()) + head.minInterval();
            if (block.timestamp < earliest && slot.sequence() != 0) {
                revert TooSoon(uint64(block.timestamp), uint64(earliest));
            }
        }
        if (given.content == 0) revert ContentZero(given.sequence);
        _checkScore(given.score);
        _checkScore(given.baseScore);
    }

    function _checkParents(bytes memory entry) private view {
        (uint256 first, uint256 end) = UpdateCodec.parentsOf(entry);
        if (first == end) return;
        uint256 previous = 0;
        uint256 sum = 0;
        uint256 stray = 0;
        // Nothing here can overflow: there are at most 64 parents, and a share has 32 bits.
        unchecked {
            for (uint256 at = first; at < end; at += 128) {
                (uint256 key, bytes32 tag, uint256 share, uint256 bits) = UpdateCodec.parentAt(at);
                if (key <= previous) revert ParentsNotAscending((at - first) / 128, uint64(key), uint64(previous));
                bytes4 expected = bytes4(_contentOf(key));
                if (tag != expected) revert TagMismatch(uint32(key >> 32), uint32(key), bytes4(tag), expected);
                sum += share;
                stray |= bits;
                previous = key;
            }
        }
        // Not valid ABI: without a word, as the compiler's own decoder refuses it.
        if (stray > type(uint32).max) revert();
        if (sum != PPM) revert SharesNotWhole(sum, PPM);
    }

    function _checkScore(uint32 score) private pure {
        if (score > PPM) revert ScoreTooHigh(score, PPM);
    }

    // ------------------------------------------------------------------------------------------------------- storage

    function _key(uint32 number, uint32 sequence) private pure returns (uint256) {
        return uint256(number) << 32 | sequence;
    }

    /// @param key From `_key`.
    function _contentOf(uint256 key) private view returns (bytes32 content) {
        content = _updates[key].content;
        if (content == 0) revert UnknownUpdate(uint32(key >> 32), uint32(key));
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

    function _updateState(uint32 number, uint32 sequence) private view returns (UpdateState memory) {
        UpdateRecord memory record = _updates[_key(number, sequence)];
        return UpdateState({
            content: record.content,
            round: record.word.round(),
            score: record.word.score(),
            time: record.word.time(),
            trainSamples: record.word.trainSamples(),
            testSamples: record.word.testSamples(),
            entry: record.word.entry(),
            flags: record.word.flags(),
            encoding: record.word.encoding()
        });
    }
}
