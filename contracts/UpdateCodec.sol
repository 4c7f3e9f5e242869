// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelLedger} from "./IModelLedger.sol";

/// @title UpdateCodec
/// @notice The log of `UpdatePublished`, made from the arguments of `publish` in one copy.
/// @dev The event's data are the arguments of the call behind one more word, the time. So where the call is encoded the
///      canonical way (as every common library does) the log is a copy of it. Any other valid encoding takes the
///      compiler's way, with the same result for 2,500 gas more; an invalid one reverts there.
library UpdateCodec {
    /// @dev Words of topics and of the data before the update: kind, index, peer, round; time, two offsets.
    uint256 private constant TOPICS = 4;
    uint256 private constant MAX_EXTRA = 256;

    /// @notice abi.encode(topics ..., data ...) of the event.
    /// @dev Index and peer are whole words: assembly would see what lies beyond a narrower type.
    function encode(
        uint256 index,
        uint256 peer,
        IModelLedger.Update calldata update,
        IModelLedger.Parent[] calldata parents
    ) internal view returns (bytes memory entry) {
        bytes32 kind = IModelLedger.UpdatePublished.selector;
        if (!isCanonical(update, parents)) {
            entry = abi.encode(kind, index, peer, update.round, block.timestamp, update, parents);
            assembly ("memory-safe") {
                // Offsets count from the start of the data; abi.encode counted from the first topic.
                mstore(add(entry, 0xc0), sub(mload(add(entry, 0xc0)), 0x80))
                mstore(add(entry, 0xe0), sub(mload(add(entry, 0xe0)), 0x80))
            }
            return entry;
        }
        assembly ("memory-safe") {
            entry := mload(0x40)
            let length := sub(add(parents.offset, shl(7, parents.length)), update)
            mstore(entry, add(0xe0, length))
            mstore(add(entry, 0x20), kind)
            mstore(add(entry, 0x40), index)
            mstore(add(entry, 0x60), peer)
            mstore(add(entry, 0x80), calldataload(add(update, 0x160)))
            mstore(add(entry, 0xa0), timestamp())
            mstore(add(entry, 0xc0), 0x60)
            mstore(add(entry, 0xe0), add(0x40, sub(parents.offset, update)))
            calldatacopy(add(entry, 0x100), update, length)
            mstore(0x40, add(add(entry, 0x100), length))
        }
    }

    /// @notice Whether the arguments lie in calldata exactly as they would in the log: in order, without gaps, no stray bit
    ///         in the update. Stray bits in parents are for the caller to find, who reads them anyway.
    function isCanonical(IModelLedger.Update calldata update, IModelLedger.Parent[] calldata parents)
        internal
        pure
        returns (bool canonical)
    {
        assembly ("memory-safe") {
            function word(base, n) -> value {
                value := calldataload(add(base, shl(5, n)))
            }
            let extra := word(update, 18)
            let padded := and(add(extra, 31), not(31))
            // `extra` right behind the 18 words of the update, the parents right behind `extra`.
            canonical := and(eq(word(update, 17), 0x240), lt(extra, add(MAX_EXTRA, 1)))
            canonical := and(canonical, eq(parents.offset, add(add(update, 0x280), padded)))
            // The bytes that pad `extra` to whole words are zero.
            if and(extra, 31) {
                let last := calldataload(add(add(update, 0x240), padded))
                canonical := and(canonical, iszero(shl(shl(3, and(extra, 31)), last)))
            }
            // No bit beyond the width of a field.
            let bits32 := or(or(word(update, 10), word(update, 11)), or(word(update, 12), word(update, 13)))
            bits32 := or(bits32, or(word(update, 14), word(update, 15)))
            let bits64 := or(or(word(update, 3), word(update, 7)), word(update, 9))
            let stray := or(shr(32, bits32), shr(64, bits64))
            stray := or(stray, or(shr(8, or(word(update, 1), word(update, 2))), shr(16, word(update, 16))))
            canonical := and(canonical, iszero(stray))
        }
    }

    /// @notice The update inside an entry, in place.
    /// @dev Fields of fixed size lie in memory as they lie in a log. Not so `extra`: the caller must not touch it.
    function fixedPart(bytes memory entry) internal pure returns (IModelLedger.Update memory update) {
        assembly ("memory-safe") {
            update := add(entry, 0x100)
        }
    }

    /// @notice Length of an entry's `extra` in bytes.
    function extraLength(bytes memory entry) internal pure returns (uint256 length) {
        assembly ("memory-safe") {
            length := mload(add(entry, 0x340))
        }
    }

    /// @notice Where the parents of an entry begin and end in memory, 128 bytes each.
    function parentsOf(bytes memory entry) internal pure returns (uint256 first, uint256 end) {
        assembly ("memory-safe") {
            let length := add(add(entry, 0xa0), mload(add(entry, 0xe0)))
            first := add(length, 0x20)
            end := add(first, shl(7, mload(length)))
        }
    }

    /// @notice One parent of an entry.
    /// @param at Between the bounds that {parentsOf} gave.
    /// @return key peer << 32 | sequence.
    /// @return tag First four bytes of the parent's content digest; anything behind them is stray.
    /// @return share In ppm.
    /// @return bits Union of the bits of all but the tag: beyond 32 bits they are stray.
    function parentAt(uint256 at) internal pure returns (uint256 key, bytes32 tag, uint256 share, uint256 bits) {
        assembly ("memory-safe") {
            let peer := mload(at)
            let sequence := mload(add(at, 0x20))
            tag := mload(add(at, 0x40))
            share := mload(add(at, 0x60))
            key := or(shl(32, peer), sequence)
            bits := or(or(peer, sequence), share)
        }
    }
}
