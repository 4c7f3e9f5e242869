// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {IModelLedger} from "../../contracts/IModelLedger.sol";
import {ModelLedger} from "../../contracts/ModelLedger.sol";
import {Base} from "./Base.sol";

contract OpeningTest is Base {
    function test_OpensWithEntryZeroAndItsMembers() public view {
        IModelLedger.State memory state = ledger.state();
        require(state.size == 5 && ledger.size() == 5);
        require(state.members == 4 && state.highestRound == 0 && state.minInterval == 0);
        require(state.owner == owner && ledger.owner() == owner);
        require(state.specDigest == SPEC && ledger.specDigest() == SPEC);
        require(state.chainId == block.chainid && state.blockNumber == block.number && state.blockTime == START);
        require(state.root == ledger.root() && state.root != 0);
        (bytes32 content, bytes32 weights, uint8 flags) = ledger.genesis();
        require(content == GENESIS && weights == GENESIS_WEIGHTS && flags == 1);
    }

    function test_LogsTheOpeningAndTheMembers() public {
        vm.expectEmit(true, true, true, true, _secondChild());
        emit IModelLedger.LedgerOpened(
            0, uint64(START), block.chainid, _secondChild(), SPEC, GENESIS, GENESIS_WEIGHTS, 1, 60, owner
        );
        for (uint32 i = 0; i < 4; ++i) {
            vm.expectEmit(true, true, true, true, _secondChild());
            emit IModelLedger.PeerAdmitted(i + 1, i + 1, uint64(START), accounts[i], _site(i + 1), ALL);
        }
        new ModelLedger(SPEC, GENESIS, GENESIS_WEIGHTS, 1, 60, owner, _members());
    }

    function test_NumbersItsMembersFromOne() public view {
        for (uint32 number = 1; number <= 4; ++number) {
            IModelLedger.PeerState memory peer = ledger.peer(number);
            require(ledger.numberOf(accounts[number - 1]) == number);
            require(peer.number == number && peer.account == accounts[number - 1] && peer.site == _site(number));
            require(peer.roles == ALL && peer.lastEntry == number && !peer.retired && peer.retiredFrom == 0);
            require(peer.sequence == 0 && peer.round == 0 && peer.epoch == 0 && peer.lastTime == 0);
        }
        require(ledger.numberOf(stranger) == 0);
    }

    function test_RefusesTooManyMembers() public {
        IModelLedger.Member[] memory many = new IModelLedger.Member[](257);
        try new ModelLedger(SPEC, GENESIS, GENESIS_WEIGHTS, 1, 0, owner, many) {
            revert("accepted");
        } catch (bytes memory got) {
            require(_same(got, abi.encodeWithSelector(IModelLedger.LengthOutOfRange.selector, 257, 0, 256)));
        }
    }

    function test_RefusesADoubleMember() public {
        IModelLedger.Member[] memory members = _members();
        members[3] = members[0];
        try new ModelLedger(SPEC, GENESIS, GENESIS_WEIGHTS, 1, 0, owner, members) {
            revert("accepted");
        } catch (bytes memory got) {
            require(_same(got, abi.encodeWithSelector(IModelLedger.AccountKnown.selector, accounts[0], 1)));
        }
    }

    function test_RefusesTheZeroOwner() public {
        try new ModelLedger(SPEC, GENESIS, GENESIS_WEIGHTS, 1, 0, address(0), _members()) {
            revert("accepted");
        } catch (bytes memory got) {
            require(_same(got, abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0))));
        }
    }

    function _same(bytes memory a, bytes memory b) private pure returns (bool) {
        return keccak256(a) == keccak256(b);
    }

    /// @dev Address of this contract's next child: its second, for setUp made the first.
    function _secondChild() private view returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"d694", address(this), bytes1(0x02))))));
    }
}

contract AdmitTest is Base {
    address private constant NEW = address(0x2001);

    function test_AdmitsTheNextNumber() public {
        _expectLog();
        emit IModelLedger.PeerAdmitted(5, 5, uint64(START), NEW, _site(9), 5);
        vm.prank(owner);
        ledger.admit(NEW, _site(9), 5);
        vm.snapshotGasLastCall("admit");
        require(ledger.numberOf(NEW) == 5 && ledger.state().members == 5 && ledger.size() == 6);
        IModelLedger.PeerState memory peer = ledger.peer(5);
        require(peer.roles == 5 && peer.site == _site(9) && peer.lastEntry == 5);
    }

    function test_AdmitsAReplacementOfTheSameSite() public {
        vm.prank(owner);
        ledger.retire(accounts[0], "lost key", 5);
        vm.prank(owner);
        ledger.admit(NEW, _site(1), ALL);
        require(ledger.peer(5).site == ledger.peer(1).site);
    }

    function test_RefusesAnybodyButTheOwner() public {
        _refused(
            accounts[0],
            abi.encodeCall(IModelLedger.admit, (NEW, 0, 1)),
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, accounts[0])
        );
    }

    function test_RefusesAMember() public {
        _refusedAdmission(accounts[2], 1, abi.encodeWithSelector(IModelLedger.AccountKnown.selector, accounts[2], 3));
    }

    function test_RefusesARetiredMember() public {
        vm.prank(owner);
        ledger.retire(accounts[2], "", 0);
        _refusedAdmission(accounts[2], 1, abi.encodeWithSelector(IModelLedger.AccountKnown.selector, accounts[2], 3));
    }

    function test_RefusesTheZeroAccount() public {
        _refusedAdmission(address(0), 1, abi.encodeWithSelector(IModelLedger.AccountZero.selector, address(0)));
    }

    function test_RefusesNoRole() public {
        _refusedAdmission(NEW, 0, abi.encodeWithSelector(IModelLedger.RolesOutOfRange.selector, 0, 1, 7));
    }

    function test_RefusesUnknownRoles() public {
        _refusedAdmission(NEW, 8, abi.encodeWithSelector(IModelLedger.RolesOutOfRange.selector, 8, 1, 7));
    }

    function _refusedAdmission(address account, uint8 roles, bytes memory expected) private {
        _refused(owner, abi.encodeCall(IModelLedger.admit, (account, _site(9), roles)), expected);
    }
}

contract RetireTest is Base {
    function test_OwnerRetiresAPeer() public {
        _round();
        _expectLog();
        emit IModelLedger.PeerRetired(9, 2, uint64(START), 6, "stolen key");
        vm.prank(owner);
        ledger.retire(accounts[1], "stolen key", 6);
        vm.snapshotGasLastCall("retire");
        IModelLedger.PeerState memory peer = ledger.peer(2);
        require(peer.retired && peer.retiredFrom == 6 && peer.sequence == 1 && peer.roles == ALL);
        require(ledger.update(2, 1).content == _content(2, 1), "nothing is removed");
    }

    function test_APeerRetiresItself() public {
        vm.prank(accounts[1]);
        ledger.retire(accounts[1], "", 5);
        require(ledger.peer(2).retired);
    }

    function test_RefusesAnotherPeer() public {
        _refused(
            accounts[0],
            abi.encodeCall(IModelLedger.retire, (accounts[1], "", 0)),
            abi.encodeWithSelector(IModelLedger.NotOwnerNorSelf.selector, accounts[0], owner, accounts[1])
        );
    }

    function test_RefusesANonMember() public {
        _refusedRetirement(stranger, "", 0, abi.encodeWithSelector(IModelLedger.NotMember.selector, stranger));
    }

    function test_RefusesToRetireTwice() public {
        vm.prank(owner);
        ledger.retire(accounts[1], "", 3);
        _refusedRetirement(accounts[1], "", 0, abi.encodeWithSelector(IModelLedger.PeerIsRetired.selector, 2, 3));
    }

    function test_RefusesAnIndexBeyondTheLog() public {
        _refusedRetirement(accounts[1], "", 6, abi.encodeWithSelector(IModelLedger.BeyondLog.selector, 6, 5));
    }

    function test_RefusesALongReason() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.LengthOutOfRange.selector, 257, 0, 256);
        _refusedRetirement(accounts[1], string(new bytes(257)), 0, expected);
        vm.prank(owner);
        ledger.retire(accounts[1], string(new bytes(256)), 0);
    }

    function test_TheRetiredWritesNoMore() public {
        _round();
        vm.prank(owner);
        ledger.retire(accounts[0], "", 4);
        bytes memory expected = abi.encodeWithSelector(IModelLedger.PeerIsRetired.selector, 1, 4);
        _refusedUpdate(1, _next(1), expected);
        _refused(accounts[0], abi.encodeCall(IModelLedger.announce, (1, 0, 0, "")), expected);
        _refused(accounts[0], abi.encodeCall(IModelLedger.attest, (0, _items(2, 1))), expected);
        _refused(accounts[0], abi.encodeCall(IModelLedger.object, (2, 1, 1, 0)), expected);
        _refused(accounts[0], abi.encodeCall(IModelLedger.retire, (accounts[0], "", 0)), expected);
    }

    function _refusedRetirement(address account, string memory reason, uint64 from, bytes memory expected) private {
        _refused(owner, abi.encodeCall(IModelLedger.retire, (account, reason, from)), expected);
    }
}

contract AnnounceTest is Base {
    function test_Announces() public {
        _expectLog();
        emit IModelLedger.PeerAnnounced(5, 3, uint64(START), 1, SPEC, GENESIS, "https://three.example:4101");
        vm.prank(accounts[2]);
        ledger.announce(1, SPEC, GENESIS, "https://three.example:4101");
        vm.snapshotGasLastCall("announce");
        require(ledger.peer(3).epoch == 1 && ledger.size() == 6);
    }

    function test_RefusesAnyEpochButTheNext() public {
        _refusedAnnouncement(0, "", abi.encodeWithSelector(IModelLedger.EpochNotNext.selector, 0, 1));
        _refusedAnnouncement(2, "", abi.encodeWithSelector(IModelLedger.EpochNotNext.selector, 2, 1));
        vm.prank(accounts[2]);
        ledger.announce(1, 0, 0, "");
        _refusedAnnouncement(1, "", abi.encodeWithSelector(IModelLedger.EpochNotNext.selector, 1, 2));
        vm.prank(accounts[2]);
        ledger.announce(2, 0, 0, "");
        require(ledger.peer(3).epoch == 2);
    }

    function test_RefusesALongEndpoint() public {
        bytes memory expected = abi.encodeWithSelector(IModelLedger.LengthOutOfRange.selector, 257, 0, 256);
        _refusedAnnouncement(1, string(new bytes(257)), expected);
        vm.prank(accounts[2]);
        ledger.announce(1, 0, 0, string(new bytes(256)));
    }

    function test_RefusesANonMember() public {
        _refused(
            stranger,
            abi.encodeCall(IModelLedger.announce, (1, 0, 0, "")),
            abi.encodeWithSelector(IModelLedger.NotMember.selector, stranger)
        );
    }

    function test_KeepsTheRestOfThePeer() public {
        _round();
        vm.prank(accounts[2]);
        ledger.announce(1, 0, 0, "");
        IModelLedger.PeerState memory peer = ledger.peer(3);
        require(peer.sequence == 1 && peer.round == 1 && peer.lastEntry == 7 && peer.lastTime == START);
        require(peer.roles == ALL && !peer.retired && peer.epoch == 1);
    }

    function _refusedAnnouncement(uint32 epoch, string memory endpoint, bytes memory expected) private {
        _refused(accounts[2], abi.encodeCall(IModelLedger.announce, (epoch, 0, 0, endpoint)), expected);
    }
}

contract OwnershipTest is Base {
    address private constant HEIR = address(0x3001);

    function test_ChangesHandsInTwoSteps() public {
        vm.prank(owner);
        ledger.transferOwnership(HEIR);
        require(ledger.owner() == owner && ledger.pendingOwner() == HEIR && ledger.size() == 5);
        _expectLog();
        emit IModelLedger.OwnerChanged(5, uint64(START), owner, HEIR);
        vm.prank(HEIR);
        ledger.acceptOwnership();
        require(ledger.owner() == HEIR && ledger.pendingOwner() == address(0) && ledger.size() == 6);
        vm.prank(HEIR);
        ledger.admit(address(0x2001), 0, 1);
        _refused(
            owner,
            abi.encodeCall(IModelLedger.admit, (address(0x2002), 0, 1)),
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, owner)
        );
    }

    function test_LogsNothingButItsOwnEntries() public {
        vm.recordLogs();
        vm.prank(owner);
        ledger.transferOwnership(HEIR);
        vm.prank(HEIR);
        ledger.acceptOwnership();
        require(vm.getRecordedLogs().length == 1);
    }

    function test_AnOfferCanBeTakenBack() public {
        vm.prank(owner);
        ledger.transferOwnership(HEIR);
        vm.prank(owner);
        ledger.transferOwnership(address(0));
        _refusedAcceptance(HEIR);
    }

    function test_RefusesWhoWasNotOffered() public {
        vm.prank(owner);
        ledger.transferOwnership(HEIR);
        _refusedAcceptance(stranger);
    }

    function test_RefusesAnOfferByAnybodyElse() public {
        _refused(
            stranger,
            abi.encodeCall(Ownable.transferOwnership, (stranger)),
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, stranger)
        );
    }

    function test_RefusesToRenounce() public {
        _refused(
            owner,
            abi.encodeCall(Ownable.renounceOwnership, ()),
            abi.encodeWithSelector(IModelLedger.OwnerCannotRenounce.selector, owner)
        );
    }

    function _refusedAcceptance(address sender) private {
        _refused(
            sender,
            abi.encodeWithSignature("acceptOwnership()"),
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, sender)
        );
    }
}
