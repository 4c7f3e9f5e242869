// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelLedger} from "../../contracts/IModelLedger.sol";
import {ModelLedger} from "../../contracts/ModelLedger.sol";
import {Base, Vm} from "./Base.sol";

/// @dev Does to a ledger what peers, an owner and strangers may do, half of it against the rules, and keeps in ghost state
///      what the ledger must then say. Whether a call must be accepted is decided here, from the ghosts alone.
contract Handler is Base {
    struct GhostUpdate {
        uint32 peer;
        uint32 sequence;
        bytes32 stateHash;
    }

    struct GhostPeer {
        address account;
        uint32 sequence;
        uint32 round;
        uint32 epoch;
        uint64 lastEntry;
        bool retired;
    }

    bytes32[] public leaves;
    GhostUpdate[] public published;
    GhostPeer[] public peersSeen;
    uint32 public highestRound;
    uint256 public accepted;
    uint256 public refused;
    mapping(bytes32 key => bool) private _said;

    constructor() {
        vm.warp(START);
        vm.recordLogs();
        ledger = _deploy(0, owner);
        _collect();
        for (uint32 i = 0; i < 4; ++i) {
            peersSeen.push(GhostPeer(accounts[i], 0, 0, 0, i + 1, false));
        }
    }

    /// @dev The constructor made the ledger; there is nothing to set up again in the middle of a run.
    function setUp() public override {}

    function target() external view returns (ModelLedger) {
        return ledger;
    }

    function size() external view returns (uint256) {
        return leaves.length;
    }

    function publishedCount() external view returns (uint256) {
        return published.length;
    }

    function peerCount() external view returns (uint256) {
        return peersSeen.length;
    }

    /// @dev Root over the collected raw logs.
    function recomputed() public view returns (bytes32) {
        return _treeRoot(leaves, 0, leaves.length);
    }

    function publish(uint256 who, uint32 sequence, uint32 round, uint64 seen, uint256 parentSeed, bytes32 noise)
        external
    {
        uint32 number = _pick(who);
        GhostPeer storage ghost = peersSeen[number - 1];
        IModelLedger.Update memory given = _next(number);
        given.content = noise;
        // Mostly the rule, at times a value of the fuzzer's.
        if (_seldom(sequence)) given.sequence = sequence % 8;
        if (_seldom(round)) given.round = ghost.round + round % (highestRound + 3);
        if (_seldom(seen)) given.seen = seen % (uint64(leaves.length) + 2);
        (IModelLedger.Parent[] memory parents, bool sound) = _parents(parentSeed);
        bool expected = !ghost.retired && sound && noise != 0;
        expected = expected && given.sequence == ghost.sequence + 1;
        expected = expected && given.round > ghost.round && given.round <= highestRound + 1;
        expected = expected && given.seen > ghost.lastEntry && given.seen <= leaves.length;
        if (!_call(ghost.account, abi.encodeCall(IModelLedger.publish, (given, parents)), expected)) return;
        (ghost.sequence, ghost.round, ghost.lastEntry) = (given.sequence, given.round, uint64(leaves.length - 1));
        if (given.round > highestRound) highestRound = given.round;
        bytes32 stateHash = keccak256(abi.encode(ledger.update(number, given.sequence)));
        published.push(GhostUpdate(number, given.sequence, stateHash));
    }

    function attest(uint256 who, uint256 first, uint256 second, uint32 score) external {
        uint32 number = _pick(who);
        if (published.length == 0) return;
        GhostUpdate memory a = published[first % published.length];
        GhostUpdate memory b = published[second % published.length];
        IModelLedger.Attestation[] memory items = new IModelLedger.Attestation[](2);
        items[0] = IModelLedger.Attestation(a.peer, a.sequence, score % 1_000_010, 0);
        items[1] = IModelLedger.Attestation(b.peer, b.sequence, 0, 0);
        bytes32 keyA = keccak256(abi.encode("attested", number, a.peer, a.sequence));
        bytes32 keyB = keccak256(abi.encode("attested", number, b.peer, b.sequence));
        bool expected = !peersSeen[number - 1].retired && a.peer != number && b.peer != number && keyA != keyB;
        expected = expected && !_said[keyA] && !_said[keyB] && items[0].score <= 1_000_000;
        bytes memory data = abi.encodeCall(IModelLedger.attest, (0, items));
        if (!_call(peersSeen[number - 1].account, data, expected)) return;
        _said[keyA] = _said[keyB] = true;
        require(ledger.attested(number, a.peer, a.sequence) && ledger.attested(number, b.peer, b.sequence));
    }

    function object(uint256 who, uint256 which, uint8 reason) external {
        uint32 number = _pick(who);
        if (published.length == 0) return;
        GhostUpdate memory about = published[which % published.length];
        reason = reason % 6;
        bytes32 key = keccak256(abi.encode("objected", number, about.peer, about.sequence));
        bool expected = !peersSeen[number - 1].retired && !_said[key];
        expected = expected && (about.peer == number ? reason == 4 : reason >= 1 && reason <= 3);
        bytes memory data = abi.encodeCall(IModelLedger.object, (about.peer, about.sequence, reason, 0));
        if (!_call(peersSeen[number - 1].account, data, expected)) return;
        _said[key] = true;
        require(ledger.objected(number, about.peer, about.sequence));
    }

    function announce(uint256 who, uint32 epoch, bytes calldata endpoint) external {
        GhostPeer storage ghost = peersSeen[_pick(who) - 1];
        if (!_seldom(epoch)) epoch = ghost.epoch + 1;
        bool expected = !ghost.retired && epoch == ghost.epoch + 1 && endpoint.length <= 256;
        bytes memory data = abi.encodeCall(IModelLedger.announce, (epoch, 0, 0, string(endpoint)));
        if (_call(ghost.account, data, expected)) ghost.epoch = epoch;
    }

    function admit(uint160 account, uint8 roles) external {
        address who = account % 3 == 0 ? accounts[account % 4] : address(account);
        if (!_seldom(roles)) roles = 7;
        bool known = who == address(0) || ledger.numberOf(who) != 0;
        bool expected = !known && roles >= 1 && roles <= 7;
        if (!_call(owner, abi.encodeCall(IModelLedger.admit, (who, 0, roles)), expected)) return;
        // The others' ghosts have every role: a peer with fewer is not picked to write.
        peersSeen.push(GhostPeer(who, 0, 0, 0, uint64(leaves.length - 1), roles != 7));
        require(ledger.numberOf(who) == peersSeen.length);
        if (roles != 7) _call(owner, abi.encodeCall(IModelLedger.retire, (who, "", 0)), true);
    }

    function retire(uint256 who, uint64 fromIndex, bool itself, uint256 chance) external {
        if (!_seldom(chance)) return;
        GhostPeer storage ghost = peersSeen[_pick(who) - 1];
        fromIndex = fromIndex % (uint64(leaves.length) + 2);
        bool expected = !ghost.retired && fromIndex <= leaves.length;
        bytes memory data = abi.encodeCall(IModelLedger.retire, (ghost.account, "", fromIndex));
        if (_call(itself ? ghost.account : owner, data, expected)) ghost.retired = true;
    }

    function changeOwner(uint160 heir) external {
        if (heir == 0) return;
        vm.prank(owner);
        ledger.transferOwnership(address(heir));
        _call(address(heir), abi.encodeWithSignature("acceptOwnership()"), true);
        owner = address(heir);
    }

    /// @dev Whoever is neither a member nor the owner writes nothing, whatever the call.
    function intrude(uint160 account, uint256 which, bytes32 noise) external {
        address who = address(account);
        if (who == owner || ledger.numberOf(who) != 0) return;
        bytes[7] memory calls = [
            abi.encodeCall(IModelLedger.publish, (_next(1), _none())),
            abi.encodeCall(IModelLedger.attest, (noise, _items(1, 1))),
            abi.encodeCall(IModelLedger.object, (1, 1, 1, noise)),
            abi.encodeCall(IModelLedger.announce, (1, noise, noise, "")),
            abi.encodeCall(IModelLedger.admit, (who, noise, 7)),
            abi.encodeCall(IModelLedger.retire, (accounts[0], "", 0)),
            abi.encodeWithSignature("transferOwnership(address)", who)
        ];
        _call(who, calls[which % calls.length], false);
    }

    /// @dev Time passes.
    function wait(uint16 seconds_) external {
        vm.warp(block.timestamp + seconds_);
    }

    /// @dev Once in eight times. The fuzzer likes zeros and repeats itself, so its words are mixed first.
    function _seldom(uint256 noise) private view returns (bool) {
        return uint256(keccak256(abi.encode(noise, accepted, refused))) % 8 == 0;
    }

    /// @dev A peer; seldom one that was retired.
    function _pick(uint256 who) private view returns (uint32 number) {
        number = uint32(who % peersSeen.length) + 1;
        for (uint256 tries = 0; tries < peersSeen.length && !_seldom(who) && peersSeen[number - 1].retired; ++tries) {
            number = number % uint32(peersSeen.length) + 1;
        }
    }

    /// @dev Up to three updates in a row of those published; now and then a wrong tag, share or order.
    function _parents(uint256 seed) private view returns (IModelLedger.Parent[] memory parents, bool sound) {
        uint256 count = seed % 4;
        if (count > published.length) count = published.length;
        parents = new IModelLedger.Parent[](count);
        sound = true;
        if (count == 0) return (parents, true);
        uint256 start = (seed >> 8) % (published.length - count + 1);
        uint32 left = 1_000_000;
        uint64 previous = 0;
        for (uint256 i = 0; i < count; ++i) {
            GhostUpdate memory update = published[start + i];
            uint32 share = i == count - 1 ? left : left / 3;
            left -= share;
            bytes4 tag = bytes4(ledger.update(update.peer, update.sequence).content);
            parents[i] = IModelLedger.Parent(update.peer, update.sequence, tag, share);
            uint64 key = uint64(update.peer) << 32 | update.sequence;
            if (key <= previous) sound = false;
            previous = key;
        }
        uint256 fault = _seldom(seed) ? seed % 3 : 3;
        if (fault == 0) (parents[0].tag, sound) = (parents[0].tag ^ 0x01000000, false);
        if (fault == 1) (parents[0].share, sound) = (parents[0].share + 1, false);
        if (fault == 2) (parents[0].sequence, sound) = (1_000, false);
    }

    /// @dev Sends; the outcome must be the expected one. The logs are collected and the root compared at the new size.
    function _call(address sender, bytes memory data, bool expected) private returns (bool done) {
        vm.prank(sender);
        (done,) = address(ledger).call(data);
        require(done == expected, done ? "accepted against the rules" : "refused against the rules");
        uint256 before = leaves.length;
        _collect();
        require(leaves.length == before + (done ? 1 : 0), "one entry per accepted call");
        require(ledger.size() == leaves.length, "size is the number of logs");
        require(ledger.root() == recomputed(), "root is that of the logs");
        if (done) ++accepted;
        else ++refused;
    }

    /// @dev Every log of the ledger is a leaf, and its topic 1 is its position.
    function _collect() private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            require(logs[i].emitter == address(ledger), "a foreign log");
            require(uint256(logs[i].topics[1]) == leaves.length, "indexes are contiguous");
            leaves.push(_leaf(logs[i]));
        }
    }
}
