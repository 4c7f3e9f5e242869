// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title MerkleLog
/// @notice An append-only RFC 6962 Merkle tree of event logs, kept as its frontier: log2(size) hashes.
library MerkleLog {
    /// @dev `nodes[k]` is the root of the last complete subtree of 2^k leaves on the left spine, if bit k of the size
    ///      is set; else it is left over from earlier and not used.
    struct Frontier {
        bytes32[64] nodes;
    }

    /// @notice Add the leaf SHA-256(0x00 || entry).
    /// @param self The frontier.
    /// @param size Number of leaves before.
    /// @param entry The topics and the data of an event log; unchanged on return.
    function append(Frontier storage self, uint256 size, bytes memory entry) internal {
        bytes32 hash = leaf(entry);
        uint256 level = 0;
        for (; size & 1 == 1; size >>= 1) {
            hash = node(_load(self, level), hash);
            unchecked {
                ++level;
            }
        }
        _store(self, level, hash);
    }

    /// @notice The root over all leaves (RFC 6962, section 2.1).
    /// @param self The frontier.
    /// @param size Number of leaves.
    function root(Frontier storage self, uint256 size) internal view returns (bytes32 hash) {
        if (size == 0) return sha256("");
        uint256 level = 0;
        for (; size & 1 == 0; size >>= 1) {
            ++level;
        }
        hash = _load(self, level);
        for (size >>= 1; size != 0; size >>= 1) {
            ++level;
            if (size & 1 == 1) hash = node(_load(self, level), hash);
        }
    }

    // A size has 64 bits and a level is one of them: no bounds to check.

    function _load(Frontier storage self, uint256 level) private view returns (bytes32 hash) {
        assembly ("memory-safe") {
            hash := sload(add(self.slot, level))
        }
    }

    function _store(Frontier storage self, uint256 level, bytes32 hash) private {
        assembly ("memory-safe") {
            sstore(add(self.slot, level), hash)
        }
    }

    /// @notice SHA-256(0x00 || entry).
    /// @dev The last byte of the length word in front of the entry serves as the 0x00 and is put back, which saves
    ///      copying a kilobyte per entry.
    function leaf(bytes memory entry) internal view returns (bytes32 hash) {
        bool done;
        assembly ("memory-safe") {
            let length := mload(entry)
            mstore(entry, 0)
            done := staticcall(gas(), 2, add(entry, 31), add(length, 1), 0, 32)
            hash := mload(0)
            mstore(entry, length)
        }
        assert(done);
    }

    /// @notice SHA-256(0x01 || left || right).
    /// @dev 65 bytes of free memory that stay free; a `bytes` for each node would cost three times the hash.
    function node(bytes32 left, bytes32 right) internal view returns (bytes32 hash) {
        bool done;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 1)
            mstore(add(free, 1), left)
            mstore(add(free, 33), right)
            done := staticcall(gas(), 2, free, 65, 0, 32)
            hash := mload(0)
        }
        assert(done);
    }

    /// @notice Emit a log from abi.encode(topics ..., data ...).
    /// @dev Solidity's `emit` would encode an event a second time after its leaf was hashed.
    /// @param entry Topics, then data.
    /// @param topics Number of topics: 2, 3 or 4.
    function emitLog(bytes memory entry, uint256 topics) internal {
        assembly ("memory-safe") {
            let at := add(entry, 32)
            let data := add(at, mul(topics, 32))
            let length := sub(mload(entry), mul(topics, 32))
            switch topics
            case 2 { log2(data, length, mload(at), mload(add(at, 32))) }
            case 3 { log3(data, length, mload(at), mload(add(at, 32)), mload(add(at, 64))) }
            default { log4(data, length, mload(at), mload(add(at, 32)), mload(add(at, 64)), mload(add(at, 96))) }
        }
    }
}
