// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelLedger} from "../../contracts/IModelLedger.sol";
import {ModelLedger} from "../../contracts/ModelLedger.sol";
import {Handler} from "./Handler.sol";

/// @dev What holds after any sequence of calls. The handler itself checks after every call, accepted or not: the outcome
///      is what the rules say (sequence, round, seen, parents, tags, roles, once only), one log per accepted call, indexes
///      contiguous, and the root equals the root recomputed from the raw logs, so at every size.
contract LedgerInvariants {
    Handler private _handler;
    ModelLedger private _ledger;
    uint64 private _largest;

    function setUp() public {
        _handler = new Handler();
        _ledger = _handler.target();
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// @dev Publishing counts twice: most rules are about updates.
    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        bytes4[] memory selectors = new bytes4[](10);
        selectors[0] = selectors[1] = Handler.publish.selector;
        selectors[2] = Handler.attest.selector;
        selectors[3] = Handler.object.selector;
        selectors[4] = Handler.announce.selector;
        selectors[5] = Handler.admit.selector;
        selectors[6] = Handler.retire.selector;
        selectors[7] = Handler.changeOwner.selector;
        selectors[8] = Handler.intrude.selector;
        selectors[9] = Handler.wait.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector({addr: address(_handler), selectors: selectors});
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    function invariant_SizeNeverFalls() public {
        require(_ledger.size() >= _largest && _ledger.size() == _handler.size());
        _largest = _ledger.size();
    }

    function invariant_RootIsThatOfTheRawLogs() public view {
        require(_ledger.root() == _handler.recomputed() && _ledger.state().root == _ledger.root());
    }

    function invariant_PublishedStateNeverChanges() public view {
        for (uint256 i = 0; i < _handler.publishedCount(); ++i) {
            (uint32 peer, uint32 sequence, bytes32 stateHash) = _handler.published(i);
            require(keccak256(abi.encode(_ledger.update(peer, sequence))) == stateHash);
        }
    }

    function invariant_PeersAreAsTheirHistorySays() public view {
        require(_ledger.state().members == _handler.peerCount());
        require(_ledger.state().highestRound == _handler.highestRound());
        for (uint32 number = 1; number <= _handler.peerCount(); ++number) {
            (address account, uint32 sequence, uint32 round, uint32 epoch, uint64 lastEntry, bool retired) =
                _handler.peersSeen(number - 1);
            IModelLedger.PeerState memory peer = _ledger.peer(number);
            require(peer.account == account && peer.sequence == sequence && peer.round == round);
            require(peer.epoch == epoch && peer.lastEntry == lastEntry && peer.retired == retired);
            require(_ledger.numberOf(account) == number && peer.round <= _handler.highestRound());
        }
    }

    function invariant_SequencesHaveNoGapsAndRoundsRise() public view {
        for (uint32 number = 1; number <= _handler.peerCount(); ++number) {
            IModelLedger.UpdateState[] memory updates = _ledger.updates(number, 1, 256);
            require(updates.length == _ledger.peer(number).sequence);
            for (uint256 i = 0; i < updates.length; ++i) {
                require(updates[i].content != 0 && updates[i].entry < _ledger.size());
                require(i == 0 || (updates[i].round > updates[i - 1].round && updates[i].entry > updates[i - 1].entry));
            }
        }
    }

    /// @dev A run that accepted or refused nothing would prove nothing.
    function afterInvariant() public view {
        require(_handler.accepted() != 0 && _handler.refused() != 0, "an idle run");
        require(_handler.publishedCount() > 0, "no update");
    }
}
