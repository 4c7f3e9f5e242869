// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelLedger} from "../../contracts/IModelLedger.sol";
import {Base} from "./Base.sol";

contract PublishTest is Base {
    function test_PublishesFromTheGenesis() public {
        IModelLedger.Update memory given = _next(1);
        given.extra = "abc";
        _expectLog();
        emit IModelLedger.UpdatePublished(5, 1, 1, uint64(START), given, _none());
        vm.prank(accounts[0]);
        ledger.publish(given, _none());
        IModelLedger.PeerState memory peer = ledger.peer(1);
        require(peer.sequence == 1 && peer.round == 1 && peer.lastEntry == 5 && peer.lastTime == START);
        require(peer.roles == ALL && !peer.retired && peer.epoch == 0 && peer.number == 1);
        require(ledger.state().highestRound == 1 && ledger.size() == 6);
    }

    function test_PublishesWithParents() public {
        _round();
        vm.warp(START + 9);
        IModelLedger.Update memory given = _next(2);
        given.flags = 7;
        given.encoding = 3;
        given.sealedAt = 9;
        given.refersTo = 1 << 32 | 1;
        _expectLog();
        emit IModelLedger.UpdatePublished(9, 2, 2, uint64(START + 9), given, _three(1));
        vm.cool(address(ledger));
        vm.prank(accounts[1]);
        ledger.publish(given, _three(1));
        vm.snapshotGasLastCall("publish with three parents");
        IModelLedger.UpdateState memory state = ledger.update(2, 2);
        require(state.content == given.content && state.round == 2 && state.score == given.score);
        require(state.time == START + 9 && state.trainSamples == 1_000 && state.testSamples == 200);
        require(state.entry == 9 && state.flags == 7 && state.encoding == 3);
    }

    function test_ALateJoinerSkipsRounds() public {
        _publish(1);
        _publish(1);
        _publish(1);
        IModelLedger.Update memory given = _next(2);
        given.round = 4;
        vm.prank(accounts[1]);
        ledger.publish(given, _none());
        require(ledger.peer(2).sequence == 1 && ledger.peer(2).round == 4 && ledger.state().highestRound == 4);
    }

    function test_ALowerRoundLeavesTheHighest() public {
        _publish(1);
        _publish(1);
        _publish(2);
        require(ledger.state().highestRound == 2 && ledger.peer(2).round == 1);
    }

    function test_AcceptsTheSameContentTwice() public {
        _publish(1);
        IModelLedger.Update memory given = _next(2);
        given.content = _content(1, 1);
        vm.prank(accounts[1]);
        ledger.publish(given, _none());
        require(ledger.update(2, 1).content == ledger.update(1, 1).content);
    }

    function test_RefusesANonMember() public {
        _refused(
            stranger,
            abi.encodeCall(IModelLedger.publish, (_next(1), _none())),
            abi.encodeWithSelector(IModelLedger.NotMember.selector, stranger)
        );
    }

    function test_RefusesAPeerWithoutTheRole() public {
        address reader = address(0x2001);
        vm.prank(owner);
        ledger.admit(reader, 0, 6);
        _refused(
            reader,
            abi.encodeCall(IModelLedger.publish, (_next(5), _none())),
            abi.encodeWithSelector(IModelLedger.RoleMissing.selector, 5, 6, 1)
        );
    }

    function test_RefusesASequenceAgain() public {
        _publish(1);
        IModelLedger.Update memory given = _next(1);
        given.sequence = 1;
        _refusedUpdate(1, given, abi.encodeWithSelector(IModelLedger.SequenceNotNext.selector, 1, 2));
    }

    function test_RefusesAGapInTheSequence() public {
        IModelLedger.Update memory given = _next(1);
        given.sequence = 2;
        _refusedUpdate(1, given, abi.encodeWithSelector(IModelLedger.SequenceNotNext.selector, 2, 1));
    }

    function test_RefusesAnOldRound() public {
        _publish(1);
        IModelLedger.Update memory given = _next(1);
        given.round = 1;
        _refusedUpdate(1, given, abi.encodeWithSelector(IModelLedger.RoundOutOfRange.selector, 1, 2, 2));
    }

    function test_RefusesARoundAhead() public {
        IModelLedger.Update memory given = _next(1);
        given.round = 2;
        _refusedUpdate(1, given, abi.encodeWithSelector(IModelLedger.RoundOutOfRange.selector, 2, 1, 1));
    }

    function test_RefusesSeenBeforeTheOwnAdmission() public {
        IModelLedger.Update memory given = _next(3);
        given.seen = 3;
        _refusedUpdate(3, given, abi.encodeWithSelector(IModelLedger.SeenOutOfRange.selector, 3, 4, 5));
        given.seen = 4;
        vm.prank(accounts[2]);
        ledger.publish(given, _none());
    }

    function test_RefusesSeenBeforeTheOwnLatestUpdate() public {
        _round();
        IModelLedger.Update memory given = _next(2);
        given.seen = 6;
        _refusedUpdate(2, given, abi.encodeWithSelector(IModelLedger.SeenOutOfRange.selector, 6, 7, 9));
        given.seen = 7;
        vm.prank(accounts[1]);
        ledger.publish(given, _none());
    }

    function test_RefusesSeenBeyondTheLog() public {
        IModelLedger.Update memory given = _next(1);
        given.seen = 6;
        _refusedUpdate(1, given, abi.encodeWithSelector(IModelLedger.SeenOutOfRange.selector, 6, 2, 5));
    }

    function test_RefusesSealedBeyondTheLog() public {
        IModelLedger.Update memory given = _next(1);
        given.sealedAt = 6;
        _refusedUpdate(1, given, abi.encodeWithSelector(IModelLedger.BeyondLog.selector, 6, 5));
    }

    function test_RefusesAnUpdateTooSoon() public {
        ledger = _deploy(60, owner);
        _publish(1);
        vm.warp(START + 59);
        bytes memory expected = abi.encodeWithSelector(IModelLedger.TooSoon.selector, START + 59, START + 60);
        _refusedUpdate(1, _next(1), expected);
        _publish(2);
        vm.warp(START + 60);
        _publish(1);
    }

    function test_TheFirstUpdateNeedsNoWait() public {
        ledger = _deploy(type(uint32).max, owner);
        _publish(1);
    }

    function test_RefusesNoContent() public {
        IModelLedger.Update memory given = _next(1);
        given.content = 0;
        _refusedUpdate(1, given, abi.encodeWithSelector(IModelLedger.ContentZero.selector, 1));
    }

    function test_RefusesAScoreAboveTheWhole() public {
        IModelLedger.Update memory given = _next(1);
        given.score = 1_000_001;
        _refusedUpdate(1, given, abi.encodeWithSelector(IModelLedger.ScoreTooHigh.selector, 1_000_001, 1_000_000));
        given.score = 1_000_000;
        given.baseScore = type(uint32).max;
        bytes memory expected = abi.encodeWithSelector(IModelLedger.ScoreTooHigh.selector, type(uint32).max, 1_000_000);
        _refusedUpdate(1, given, expected);
    }

    function test_RefusesALongExtra() public {
        IModelLedger.Update memory given = _next(1);
        given.extra = new bytes(257);
        bytes memory expected = abi.encodeWithSelector(IModelLedger.LengthOutOfRange.selector, 257, 0, 256);
        _refusedUpdate(1, given, expected);
        given.extra = new bytes(256);
        vm.prank(accounts[0]);
        ledger.publish(given, _none());
    }

    function test_RefusesTooManyParents() public {
        IModelLedger.Parent[] memory parents = new IModelLedger.Parent[](65);
        _refusedParents(1, parents, abi.encodeWithSelector(IModelLedger.LengthOutOfRange.selector, 65, 0, 64));
    }

    function test_AcceptsAsManyParentsAsMayBe() public {
        IModelLedger.Parent[] memory parents = new IModelLedger.Parent[](64);
        for (uint32 sequence = 1; sequence <= 64; ++sequence) {
            _publish(1);
            parents[sequence - 1] = _parent(1, sequence, 15_625);
        }
        _publish(2, parents);
    }

    function test_RefusesParentsInDisorder() public {
        _round();
        IModelLedger.Parent[] memory parents = _three(1);
        (parents[1], parents[2]) = (parents[2], parents[1]);
        bytes memory expected =
            abi.encodeWithSelector(IModelLedger.ParentsNotAscending.selector, 2, 2 << 32 | 1, 3 << 32 | 1);
        _refusedParents(1, parents, expected);
    }

    function test_RefusesAParentTwice() public {
        _round();
        IModelLedger.Parent[] memory parents = _three(1);
        parents[1] = parents[0];
        bytes memory expected =
            abi.encodeWithSelector(IModelLedger.ParentsNotAscending.selector, 1, 1 << 32 | 1, 1 << 32 | 1);
        _refusedParents(1, parents, expected);
    }

    function test_RefusesAnUnknownParent() public {
        _round();
        IModelLedger.Parent[] memory parents = _three(1);
        parents[2] = _parent(3, 2, 666_666);
        _refusedParents(1, parents, abi.encodeWithSelector(IModelLedger.UnknownUpdate.selector, 3, 2));
    }

    function test_RefusesAnotherTag() public {
        _round();
        IModelLedger.Parent[] memory parents = _three(1);
        parents[1].tag = 0xdeadbeef;
        bytes memory expected =
            abi.encodeWithSelector(IModelLedger.TagMismatch.selector, 2, 1, bytes4(0xdeadbeef), bytes4(_content(2, 1)));
        _refusedParents(1, parents, expected);
    }

    function test_RefusesSharesThatAreNotTheWhole() public {
        _round();
        IModelLedger.Parent[] memory parents = _three(1);
        parents[1].share = 1;
        bytes memory expected = abi.encodeWithSelector(IModelLedger.SharesNotWhole.selector, 1_000_001, 1_000_000);
        _refusedParents(1, parents, expected);
        parents[0].share = parents[1].share = parents[2].share = 0;
        _refusedParents(1, parents, abi.encodeWithSelector(IModelLedger.SharesNotWhole.selector, 0, 1_000_000));
    }
}

/// @dev Calls whose encoding is not the usual one.
contract EncodingTest is Base {
    // Offsets in a call: selector, two offsets, 18 words of the update, `extra`, parents.
    uint256 private constant UPDATE = 4 + 64;

    function setUp() public override {
        super.setUp();
        _round();
    }

    function test_AnUnusualOrderGivesTheSameLog() public {
        IModelLedger.Update memory given = _next(1);
        given.extra = "some";
        bytes memory usual = abi.encodeCall(IModelLedger.publish, (given, _three(1)));
        // A gap of a word before the parents: valid, but not what encoders write.
        uint256 parentsAt = UPDATE + 18 * 32 + 64;
        bytes memory unusual =
            bytes.concat(_slice(usual, 0, parentsAt), new bytes(32), _slice(usual, parentsAt, usual.length));
        _set(unusual, 36, parentsAt + 32 - 4);
        _expectLog();
        emit IModelLedger.UpdatePublished(9, 1, 2, uint64(START), given, _three(1));
        _call(unusual);
    }

    function test_PaddingBehindExtraIsNotLogged() public {
        IModelLedger.Update memory given = _next(1);
        given.extra = "some";
        bytes memory usual = abi.encodeCall(IModelLedger.publish, (given, _three(1)));
        usual[UPDATE + 19 * 32 + 4] = 0x01;
        // The compiler's decoder takes no notice of padding: the log has zeros there.
        _expectLog();
        emit IModelLedger.UpdatePublished(9, 1, 2, uint64(START), given, _three(1));
        _call(usual);
    }

    function test_RefusesStrayBitsInTheUpdate() public {
        uint256[12] memory words = [uint256(1), 2, 3, 7, 9, 10, 11, 12, 13, 14, 15, 16];
        uint256[12] memory bits = [uint256(8), 8, 64, 64, 64, 32, 32, 32, 32, 32, 32, 16];
        for (uint256 i = 0; i < words.length; ++i) {
            _refusedStray(UPDATE + 32 * words[i], 1 << bits[i]);
            _refusedStray(UPDATE + 32 * words[i], 1 << 255);
        }
    }

    function test_RefusesStrayBitsInAParent() public {
        uint256 parents = UPDATE + 20 * 32;
        for (uint256 position = 0; position < 3; ++position) {
            _refusedStray(parents + 128 * position + 96, 1 << 32);
            _refusedStray(parents + 128 * position + 96, 1 << 255);
        }
        // A peer number hidden in the upper bits of a sequence: 0 and (3 << 32 | 1) would read as 3#1.
        bytes memory data = abi.encodeCall(IModelLedger.publish, (_next(1), _three(1)));
        _set(data, parents + 256, 0);
        _set(data, parents + 256 + 32, 3 << 32 | 1);
        _refused(accounts[0], data, "");
    }

    function test_RefusesStrayBitsBehindATag() public {
        bytes memory data = abi.encodeCall(IModelLedger.publish, (_next(1), _three(1)));
        data[UPDATE + 20 * 32 + 64 + 4] = 0x01;
        bytes4 tag = bytes4(_content(1, 1));
        _refused(accounts[0], data, abi.encodeWithSelector(IModelLedger.TagMismatch.selector, 1, 1, tag, tag));
    }

    function test_RefusesAnEndlessExtra() public {
        bytes memory data = abi.encodeCall(IModelLedger.publish, (_next(1), _three(1)));
        _set(data, UPDATE + 18 * 32, type(uint256).max);
        _refused(accounts[0], data, "");
    }

    /// @dev Whatever the bytes of `extra`: the log is what the compiler would emit, the leaf what RFC 6962 says.
    function testFuzz_TheLogIsTheCompilers(IModelLedger.Update memory noise, bytes memory extra, bool gap) public {
        vm.assume(noise.content != 0 && extra.length <= 256);
        IModelLedger.Update memory given = _next(1);
        (noise.sequence, noise.round, noise.seen, noise.sealedAt) = (given.sequence, given.round, given.seen, 3);
        (noise.score, noise.baseScore, noise.extra) = (noise.score % 1_000_001, noise.baseScore % 1_000_001, extra);
        bytes memory data = abi.encodeCall(IModelLedger.publish, (noise, _three(1)));
        if (gap) {
            uint256 at = UPDATE + 19 * 32 + (extra.length + 31) / 32 * 32;
            data = bytes.concat(_slice(data, 0, at), new bytes(32), _slice(data, at, data.length));
            _set(data, 36, at + 32 - 4);
        }
        _expectLog();
        emit IModelLedger.UpdatePublished(9, 1, 2, uint64(START), noise, _three(1));
        _call(data);
        IModelLedger.UpdateState memory state = ledger.update(1, 2);
        require(state.content == noise.content && state.score == noise.score && state.round == noise.round);
        require(state.trainSamples == noise.trainSamples && state.testSamples == noise.testSamples);
        require(state.flags == noise.flags && state.encoding == noise.encoding && state.entry == 9);
    }

    function _refusedStray(uint256 at, uint256 bits) private {
        bytes memory data = abi.encodeCall(IModelLedger.publish, (_next(1), _three(1)));
        uint256 word;
        assembly ("memory-safe") {
            word := mload(add(add(data, 32), at))
        }
        _set(data, at, word | bits);
        _refused(accounts[0], data, "");
    }

    function _call(bytes memory data) private {
        vm.prank(accounts[0]);
        (bool done,) = address(ledger).call(data);
        require(done, "refused");
    }

    function _set(bytes memory data, uint256 at, uint256 value) private pure {
        assembly ("memory-safe") {
            mstore(add(add(data, 32), at), value)
        }
    }

    function _slice(bytes memory given, uint256 from, uint256 to) private pure returns (bytes memory part) {
        part = new bytes(to - from);
        for (uint256 i = from; i < to; ++i) {
            part[i - from] = given[i];
        }
    }
}

contract AttestTest is Base {
    function setUp() public override {
        super.setUp();
        _round();
    }

    function test_AttestsThree() public {
        _publish(2);
        IModelLedger.Attestation[] memory items = new IModelLedger.Attestation[](3);
        items[0] = _items(3, 1)[0];
        items[1] = _items(2, 2)[0];
        items[2] = _items(2, 1)[0];
        _expectLog();
        emit IModelLedger.UpdatesAttested(10, 1, uint64(START), SPEC, items);
        vm.cool(address(ledger));
        vm.prank(accounts[0]);
        ledger.attest(SPEC, items);
        vm.snapshotGasLastCall("attest three, first of their publishers");
        require(ledger.attested(1, 2, 1) && ledger.attested(1, 2, 2) && ledger.attested(1, 3, 1));
        require(!ledger.attested(1, 3, 2) && !ledger.attested(2, 3, 1) && !ledger.attested(1, 4, 1));
        require(!ledger.objected(1, 2, 1));
    }

    function test_AttestsBeyondASlotOfSequences() public {
        for (uint32 i = 0; i < 256; ++i) {
            _publish(2);
        }
        vm.prank(accounts[0]);
        ledger.attest(0, _items(2, 1));
        require(!ledger.attested(1, 2, 257));
        vm.prank(accounts[0]);
        ledger.attest(0, _items(2, 257));
        require(ledger.attested(1, 2, 257));
    }

    function test_RefusesANonMember() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.NotMember.selector, stranger);
        _refused(stranger, abi.encodeCall(IModelLedger.attest, (0, _items(2, 1))), expected);
    }

    function test_RefusesAPeerWithoutTheRole() public {
        vm.prank(owner);
        ledger.admit(address(0x2001), 0, 5);
        bytes memory expected = abi.encodeWithSelector(IModelLedger.RoleMissing.selector, 5, 5, 2);
        _refused(address(0x2001), abi.encodeCall(IModelLedger.attest, (0, _items(2, 1))), expected);
    }

    function test_RefusesNothing() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.LengthOutOfRange.selector, 0, 1, 64);
        _refusedItems(new IModelLedger.Attestation[](0), expected);
    }

    function test_RefusesTooMany() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.LengthOutOfRange.selector, 65, 1, 64);
        _refusedItems(new IModelLedger.Attestation[](65), expected);
    }

    function test_RefusesTheOwnUpdate() public {
        _refusedItems(_items(1, 1), abi.encodeWithSelector(IModelLedger.OwnUpdate.selector, 1, 1));
    }

    function test_RefusesAnUnknownUpdate() public {
        _refusedItems(_items(2, 2), abi.encodeWithSelector(IModelLedger.UnknownUpdate.selector, 2, 2));
    }

    function test_RefusesASecondAttestation() public {
        vm.prank(accounts[0]);
        ledger.attest(0, _items(2, 1));
        _refusedItems(_items(2, 1), abi.encodeWithSelector(IModelLedger.AlreadyAttested.selector, 1, 2, 1));
    }

    function test_RefusesAnUpdateTwiceInOneList() public {
        IModelLedger.Attestation[] memory items = new IModelLedger.Attestation[](2);
        items[0] = items[1] = _items(2, 1)[0];
        _refusedItems(items, abi.encodeWithSelector(IModelLedger.AlreadyAttested.selector, 1, 2, 1));
    }

    function test_RefusesAScoreAboveTheWhole() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.ScoreTooHigh.selector, 1_000_001, 1_000_000);
        IModelLedger.Attestation[] memory items = _items(2, 1);
        items[0].score = 1_000_001;
        _refusedItems(items, expected);
        items[0].score = 1_000_000;
        items[0].baseScore = 1_000_001;
        _refusedItems(items, expected);
    }

    function _refusedItems(IModelLedger.Attestation[] memory items, bytes memory expected) private {
        _refused(accounts[0], abi.encodeCall(IModelLedger.attest, (0, items)), expected);
    }
}

contract ObjectTest is Base {
    function setUp() public override {
        super.setUp();
        _round();
    }

    function test_ObjectsForEachReasonOfOthers() public {
        for (uint8 reason = 1; reason <= 3; ++reason) {
            _expectLog();
            emit IModelLedger.UpdateObjected(8 + reason, 1, uint64(START), reason + 1, 1, reason, SPEC);
            vm.prank(accounts[0]);
            ledger.object(reason + 1, 1, reason, SPEC);
            require(ledger.objected(1, reason + 1, 1));
        }
        vm.snapshotGasLastCall("object");
        require(!ledger.attested(1, 2, 1) && !ledger.objected(2, 1, 1));
    }

    function test_APublisherWithdraws() public {
        _expectLog();
        emit IModelLedger.UpdateObjected(9, 1, uint64(START), 1, 1, 4, 0);
        vm.prank(accounts[0]);
        ledger.object(1, 1, 4, 0);
        require(ledger.objected(1, 1, 1));
    }

    function test_OneRoleIsEnough() public {
        for (uint8 role = 1; role <= 2; ++role) {
            address account = address(uint160(0x2000 + role));
            vm.prank(owner);
            ledger.admit(account, 0, role);
            vm.prank(account);
            ledger.object(1, 1, 1, 0);
        }
    }

    function test_AttestingAndObjectingAreApart() public {
        vm.prank(accounts[0]);
        ledger.attest(0, _items(2, 1));
        vm.prank(accounts[0]);
        ledger.object(2, 1, 1, 0);
    }

    function test_RefusesANonMember() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.NotMember.selector, stranger);
        _refused(stranger, abi.encodeCall(IModelLedger.object, (2, 1, 1, 0)), expected);
    }

    function test_RefusesAReader() public {
        vm.prank(owner);
        ledger.admit(address(0x2001), 0, 4);
        bytes memory expected = abi.encodeWithSelector(IModelLedger.RoleMissing.selector, 5, 4, 3);
        _refused(address(0x2001), abi.encodeCall(IModelLedger.object, (2, 1, 1, 0)), expected);
    }

    function test_RefusesAnUnknownUpdate() public {
        _refusedObjection(2, 2, 1, abi.encodeWithSelector(IModelLedger.UnknownUpdate.selector, 2, 2));
    }

    function test_RefusesASecondObjection() public {
        vm.prank(accounts[0]);
        ledger.object(2, 1, 1, 0);
        _refusedObjection(2, 1, 2, abi.encodeWithSelector(IModelLedger.AlreadyObjected.selector, 1, 2, 1));
    }

    function test_RefusesNoReason() public {
        _refusedObjection(2, 1, 0, abi.encodeWithSelector(IModelLedger.ReasonOutOfRange.selector, 0, 1, 3));
    }

    function test_RefusesToWithdrawAnothersUpdate() public {
        _refusedObjection(2, 1, 4, abi.encodeWithSelector(IModelLedger.ReasonOutOfRange.selector, 4, 1, 3));
    }

    function test_RefusesAPublisherAnythingButWithdrawing() public {
        _refusedObjection(1, 1, 3, abi.encodeWithSelector(IModelLedger.ReasonOutOfRange.selector, 3, 4, 4));
        _refusedObjection(1, 1, 5, abi.encodeWithSelector(IModelLedger.ReasonOutOfRange.selector, 5, 4, 4));
    }

    function _refusedObjection(uint32 target, uint32 sequence, uint8 reason, bytes memory expected) private {
        _refused(accounts[0], abi.encodeCall(IModelLedger.object, (target, sequence, reason, 0)), expected);
    }
}

contract ViewsTest is Base {
    function setUp() public override {
        super.setUp();
        _round();
        _publish(2);
        _publish(2);
    }

    function test_PagesPeers() public view {
        require(ledger.peers(1, 256).length == 4 && ledger.peers(0, 256).length == 4);
        IModelLedger.PeerState[] memory page = ledger.peers(2, 2);
        require(page.length == 2 && page[0].number == 2 && page[1].number == 3);
        require(keccak256(abi.encode(page[0])) == keccak256(abi.encode(ledger.peer(2))));
        require(ledger.peers(4, 9).length == 1 && ledger.peers(5, 9).length == 0 && ledger.peers(1, 0).length == 0);
    }

    function test_PagesUpdates() public view {
        require(ledger.updates(2, 1, 256).length == 3 && ledger.updates(2, 0, 256).length == 3);
        IModelLedger.UpdateState[] memory page = ledger.updates(2, 2, 9);
        require(page.length == 2 && page[0].content == _content(2, 2) && page[1].content == _content(2, 3));
        require(keccak256(abi.encode(page[1])) == keccak256(abi.encode(ledger.update(2, 3))));
        require(ledger.updates(2, 4, 9).length == 0 && ledger.updates(9, 1, 9).length == 0);
    }

    function test_RefusesALongPage() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.LengthOutOfRange.selector, 257, 0, 256);
        _refused(stranger, abi.encodeCall(IModelLedger.peers, (1, 257)), expected);
        _refused(stranger, abi.encodeCall(IModelLedger.updates, (1, 1, 257)), expected);
    }

    function test_RefusesAnUnknownPeer() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.UnknownPeer.selector, 5, 4);
        _refused(stranger, abi.encodeCall(IModelLedger.peer, (5)), expected);
        expected = abi.encodeWithSelector(IModelLedger.UnknownPeer.selector, 0, 4);
        _refused(stranger, abi.encodeCall(IModelLedger.peer, (0)), expected);
    }

    function test_RefusesAnUnknownUpdate() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.UnknownUpdate.selector, 2, 4);
        _refused(stranger, abi.encodeCall(IModelLedger.update, (2, 4)), expected);
    }
}
