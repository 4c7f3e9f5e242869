// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelLedger} from "../../contracts/IModelLedger.sol";
import {MerkleLog} from "../../contracts/MerkleLog.sol";
import {ModelLedger} from "../../contracts/ModelLedger.sol";
import {Base, Vm} from "./Base.sol";

/// @dev The tree alone.
contract Tree {
    using MerkleLog for MerkleLog.Frontier;

    MerkleLog.Frontier private _frontier;
    uint256 public size;

    function append(bytes memory entry) external {
        bytes32 before = keccak256(entry);
        _frontier.append(size++, entry);
        require(keccak256(entry) == before, "entry changed");
    }

    function root() external view returns (bytes32) {
        return _frontier.root(size);
    }
}

contract MerkleLogTest is Base {
    /// @dev Inputs and roots of the test vectors that implementations of RFC 6962 share.
    function test_GivesTheRootsOfTheSharedVectors() public {
        bytes[8] memory inputs = [
            bytes(""),
            hex"00",
            hex"10",
            hex"2021",
            hex"3031",
            hex"40414243",
            hex"5051525354555657",
            hex"606162636465666768696a6b6c6d6e6f"
        ];
        bytes32[9] memory roots = [
            bytes32(0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855),
            0x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d,
            0xfac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125,
            0xaeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77,
            0xd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7,
            0x4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4,
            0x76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef,
            0xddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c,
            0x5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328
        ];
        Tree tree = new Tree();
        for (uint256 size = 0; size < 8; ++size) {
            require(tree.root() == roots[size]);
            tree.append(inputs[size]);
        }
        require(tree.root() == roots[8]);
    }

    /// @dev At every size the incremental root is the recursive one.
    function testFuzz_EverySizeHasTheRecursiveRoot(bytes32 seed, uint8 count) public {
        Tree tree = new Tree();
        bytes32[] memory leaves = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            bytes memory entry = abi.encodePacked(seed, i);
            leaves[i] = sha256(abi.encodePacked(bytes1(0), entry));
            tree.append(entry);
            require(tree.root() == _treeRoot(leaves, 0, i + 1));
        }
    }

    function test_StopsWhereTheHashFails() public {
        bytes memory data = abi.encodeCall(IModelLedger.announce, (1, 0, 0, ""));
        vm.mockCallRevert(address(2), "", "");
        vm.prank(accounts[0]);
        (bool done,) = address(ledger).call(data);
        require(!done);
        vm.clearMockedCalls();
        vm.prank(accounts[0]);
        (done,) = address(ledger).call(data);
        require(done);
    }

    /// @dev A node of the tree is 65 bytes that begin with 01; the leaf's hash works.
    function test_StopsWhereTheHashOfANodeFails() public {
        vm.mockCallRevert(address(2), hex"01", "");
        vm.prank(accounts[0]);
        // The log has five entries: the sixth leaf makes a node.
        (bool done,) = address(ledger).call(abi.encodeCall(IModelLedger.announce, (1, 0, 0, "")));
        require(!done);
    }
}

contract CostTest is Base {
    /// @dev The price of an update depends on the levels of the tree that it completes, not on what came before.
    function test_GasIsFlatInHistory() public {
        uint256[3] memory sizes = [uint256(16), 128, 1024];
        uint256[3] memory costs;
        for (uint256 i = 0; i < sizes.length; ++i) {
            while (ledger.size() < sizes[i]) {
                _publish(uint32(ledger.size() % 4 + 1));
            }
            uint32 least = type(uint32).max;
            for (uint32 number = 1; number <= 3; ++number) {
                uint32 sequence = ledger.peer(number).sequence;
                if (sequence < least) least = sequence;
            }
            IModelLedger.Update memory given = _next(4);
            // Same length of calldata in zeros at every size.
            (given.seen, given.seenRoot) = (ledger.size(), SPEC);
            vm.cool(address(ledger));
            vm.prank(accounts[3]);
            ledger.publish(given, _three(least));
            costs[i] = vm.lastCallGas().gasTotalUsed;
        }
        for (uint256 i = 1; i < costs.length; ++i) {
            uint256 gap = costs[i] > costs[0] ? costs[i] - costs[0] : costs[0] - costs[i];
            require(gap < 500, "gas grows with history");
        }
    }
}
