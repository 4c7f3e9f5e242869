// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelLedger} from "../../contracts/IModelLedger.sol";
import {ModelLedger} from "../../contracts/ModelLedger.sol";

/// @dev The cheat codes that these tests use.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    struct Gas {
        uint64 gasLimit;
        uint64 gasTotalUsed;
        uint64 gasMemoryUsed;
        int64 gasRefunded;
        uint64 gasRemaining;
    }

    function prank(address sender) external;
    function warp(uint256 time) external;
    function cool(address target) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function expectEmit(bool, bool, bool, bool, address emitter) external;
    function mockCallRevert(address target, bytes calldata data, bytes calldata revertData) external;
    function clearMockedCalls() external;
    function lastCallGas() external view returns (Gas memory);
    function snapshotGasLastCall(string calldata name) external returns (uint256);
    function assume(bool condition) external pure;
}

/// @dev A ledger with an owner and four members, and words to speak of it.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    bytes32 internal constant SPEC = keccak256("spec");
    bytes32 internal constant GENESIS = keccak256("genesis");
    bytes32 internal constant GENESIS_WEIGHTS = keccak256("genesis weights");
    uint256 internal constant START = 1_700_000_000;
    uint8 internal constant ALL = 7;

    address internal owner = address(0xA11CE);
    address internal stranger = address(0xBAD);
    /// @dev Accounts of peers 1 to 4.
    address[4] internal accounts = [address(0x1001), address(0x1002), address(0x1003), address(0x1004)];

    ModelLedger internal ledger;

    function setUp() public virtual {
        vm.warp(START);
        ledger = _deploy(0, owner);
    }

    function _deploy(uint32 minInterval, address owner_) internal returns (ModelLedger) {
        return new ModelLedger(SPEC, GENESIS, GENESIS_WEIGHTS, 1, minInterval, owner_, _members());
    }

    function _members() internal view returns (IModelLedger.Member[] memory members) {
        members = new IModelLedger.Member[](accounts.length);
        for (uint256 i = 0; i < accounts.length; ++i) {
            members[i] = IModelLedger.Member({account: accounts[i], site: _site(i + 1), roles: ALL});
        }
    }

    function _site(uint256 number) internal pure returns (bytes32) {
        return keccak256(abi.encode("site", number));
    }

    function _content(uint256 number, uint256 sequence) internal pure returns (bytes32) {
        return keccak256(abi.encode("content", number, sequence));
    }

    /// @dev A valid next update of a peer.
    function _next(uint32 number) internal view returns (IModelLedger.Update memory given) {
        IModelLedger.PeerState memory state = ledger.peer(number);
        uint32 sequence = state.sequence + 1;
        given = IModelLedger.Update({
            content: _content(number, sequence),
            flags: 1,
            encoding: 0,
            refersTo: 0,
            weights: keccak256(abi.encode("weights", number, sequence)),
            base: keccak256(abi.encode("base", number, sequence)),
            report: keccak256(abi.encode("report", number, sequence)),
            seen: ledger.size(),
            seenRoot: ledger.root(),
            sealedAt: 0,
            sequence: sequence,
            round: state.round + 1,
            score: 900_000,
            baseScore: 800_000,
            trainSamples: 1_000,
            testSamples: 200,
            rule: 1,
            extra: ""
        });
    }

    function _none() internal pure returns (IModelLedger.Parent[] memory) {
        return new IModelLedger.Parent[](0);
    }

    function _parent(uint32 number, uint32 sequence, uint32 share) internal pure returns (IModelLedger.Parent memory) {
        return
            IModelLedger.Parent({
                peer: number, sequence: sequence, tag: bytes4(_content(number, sequence)), share: share
            });
    }

    /// @dev The updates 1#s, 2#s, 3#s with shares that sum to the whole.
    function _three(uint32 sequence) internal pure returns (IModelLedger.Parent[] memory parents) {
        parents = new IModelLedger.Parent[](3);
        parents[0] = _parent(1, sequence, 333_334);
        parents[1] = _parent(2, sequence, 0);
        parents[2] = _parent(3, sequence, 666_666);
    }

    function _items(uint32 number, uint32 sequence) internal pure returns (IModelLedger.Attestation[] memory items) {
        items = new IModelLedger.Attestation[](1);
        items[0] = IModelLedger.Attestation({peer: number, sequence: sequence, score: 870_000, baseScore: 810_000});
    }

    function _publish(uint32 number) internal {
        _publish(number, _none());
    }

    function _publish(uint32 number, IModelLedger.Parent[] memory parents) internal {
        IModelLedger.Update memory given = _next(number);
        vm.prank(accounts[number - 1]);
        ledger.publish(given, parents);
    }

    /// @dev Every peer publishes its next update.
    function _round() internal {
        for (uint32 number = 1; number <= 4; ++number) {
            _publish(number);
        }
    }

    /// @dev The call reverts with exactly this error, and the log is as it was.
    function _refused(address sender, bytes memory data, bytes memory expected) internal {
        bytes32 before = keccak256(abi.encode(ledger.state()));
        vm.prank(sender);
        (bool done, bytes memory got) = address(ledger).call(data);
        require(!done, "accepted");
        require(keccak256(got) == keccak256(expected), "another error");
        require(keccak256(abi.encode(ledger.state())) == before, "state changed");
    }

    function _refusedUpdate(uint32 number, IModelLedger.Update memory given, bytes memory expected) internal {
        _refused(accounts[number - 1], abi.encodeCall(IModelLedger.publish, (given, _none())), expected);
    }

    function _refusedParents(uint32 number, IModelLedger.Parent[] memory parents, bytes memory expected) internal {
        _refused(accounts[number - 1], abi.encodeCall(IModelLedger.publish, (_next(number), parents)), expected);
    }

    function _expectLog() internal {
        vm.expectEmit(true, true, true, true, address(ledger));
    }

    // The tree once more, as RFC 6962 section 2.1 states it: recursive, over all leaves, in plain Solidity.

    function _leaf(Vm.Log memory log) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0), log.topics, log.data));
    }

    function _treeRoot(bytes32[] memory leaves, uint256 from, uint256 to) internal pure returns (bytes32) {
        if (from == to) return sha256("");
        if (to - from == 1) return leaves[from];
        uint256 split = 1;
        while (split * 2 < to - from) split *= 2;
        return sha256(
            abi.encodePacked(bytes1(0x01), _treeRoot(leaves, from, from + split), _treeRoot(leaves, from + split, to))
        );
    }
}
