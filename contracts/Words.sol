// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// Storage words. Each packs the fields that change together, so that the hot path reads and writes them once; the
// compiler would read and write a packed struct field by field.

/// @dev The log's head: size (bits 0 to 63), highest round (64 to 95), members (96 to 127), minimum interval (128 to 159).
type HeadWord is uint256;

/// @dev A peer: number (0 to 31), sequence (32 to 63), round (64 to 95), last entry (96 to 159), time of the last update
///      (160 to 199), epoch (200 to 231), roles (232 to 239), retired (240). All zero: never a member.
type PeerWord is uint256;

/// @dev An update beside its content: round (0 to 31), score (32 to 63), time (64 to 103), training samples (104 to 135),
///      test samples (136 to 167), entry (168 to 231), flags (232 to 239), encoding (240 to 247).
type UpdateWord is uint256;

using HeadLib for HeadWord global;
using PeerLib for PeerWord global;
using UpdateLib for UpdateWord global;

library HeadLib {
    function make(uint32 minInterval_) internal pure returns (HeadWord) {
        return HeadWord.wrap(uint256(minInterval_) << 128);
    }

    function size(HeadWord word) internal pure returns (uint64) {
        return uint64(HeadWord.unwrap(word));
    }

    function highestRound(HeadWord word) internal pure returns (uint32) {
        return uint32(HeadWord.unwrap(word) >> 64);
    }

    function members(HeadWord word) internal pure returns (uint32) {
        return uint32(HeadWord.unwrap(word) >> 96);
    }

    function minInterval(HeadWord word) internal pure returns (uint32) {
        return uint32(HeadWord.unwrap(word) >> 128);
    }

    /// @dev 2^64 entries do not fit a chain's lifetime.
    function withEntry(HeadWord word) internal pure returns (HeadWord) {
        unchecked {
            return HeadWord.wrap(HeadWord.unwrap(word) + 1);
        }
    }

    function withMember(HeadWord word) internal pure returns (HeadWord) {
        unchecked {
            return HeadWord.wrap(HeadWord.unwrap(word) + (1 << 96));
        }
    }

    /// @param round A round above the present highest.
    function withRound(HeadWord word, uint32 round) internal pure returns (HeadWord) {
        return HeadWord.wrap(HeadWord.unwrap(word) & ~(uint256(type(uint32).max) << 64) | uint256(round) << 64);
    }
}

library PeerLib {
    /// @dev What publishing replaces: sequence, round, last entry and time.
    uint256 private constant MOVING = ((1 << 200) - 1) ^ type(uint32).max;

    function make(uint32 number_, uint8 roles_, uint64 entry) internal pure returns (PeerWord) {
        return PeerWord.wrap(uint256(number_) | uint256(entry) << 96 | uint256(roles_) << 232);
    }

    function number(PeerWord word) internal pure returns (uint32) {
        return uint32(PeerWord.unwrap(word));
    }

    function sequence(PeerWord word) internal pure returns (uint32) {
        return uint32(PeerWord.unwrap(word) >> 32);
    }

    function round(PeerWord word) internal pure returns (uint32) {
        return uint32(PeerWord.unwrap(word) >> 64);
    }

    function lastEntry(PeerWord word) internal pure returns (uint64) {
        return uint64(PeerWord.unwrap(word) >> 96);
    }

    function lastTime(PeerWord word) internal pure returns (uint40) {
        return uint40(PeerWord.unwrap(word) >> 160);
    }

    function epoch(PeerWord word) internal pure returns (uint32) {
        return uint32(PeerWord.unwrap(word) >> 200);
    }

    function roles(PeerWord word) internal pure returns (uint8) {
        return uint8(PeerWord.unwrap(word) >> 232);
    }

    function retired(PeerWord word) internal pure returns (bool) {
        return PeerWord.unwrap(word) >> 240 != 0;
    }

    function withUpdate(PeerWord word, uint32 sequence_, uint32 round_, uint64 entry, uint256 time)
        internal
        pure
        returns (PeerWord)
    {
        return PeerWord.wrap(
            PeerWord.unwrap(word) & ~MOVING | uint256(sequence_) << 32 | uint256(round_) << 64 | uint256(entry) << 96
                | uint256(uint40(time)) << 160
        );
    }

    function withEpoch(PeerWord word, uint32 epoch_) internal pure returns (PeerWord) {
        return PeerWord.wrap(PeerWord.unwrap(word) & ~(uint256(type(uint32).max) << 200) | uint256(epoch_) << 200);
    }

    function asRetired(PeerWord word) internal pure returns (PeerWord) {
        return PeerWord.wrap(PeerWord.unwrap(word) | 1 << 240);
    }
}

library UpdateLib {
    function make(
        uint32 round_,
        uint32 score_,
        uint256 time_,
        uint32 trainSamples_,
        uint32 testSamples_,
        uint64 entry_,
        uint8 flags_,
        uint8 encoding_
    ) internal pure returns (UpdateWord) {
        return UpdateWord.wrap(
            uint256(round_) | uint256(score_) << 32 | uint256(uint40(time_)) << 64 | uint256(trainSamples_) << 104
                | uint256(testSamples_) << 136 | uint256(entry_) << 168 | uint256(flags_) << 232 | uint256(encoding_)
                << 240
        );
    }

    function round(UpdateWord word) internal pure returns (uint32) {
        return uint32(UpdateWord.unwrap(word));
    }

    function score(UpdateWord word) internal pure returns (uint32) {
        return uint32(UpdateWord.unwrap(word) >> 32);
    }

    function time(UpdateWord word) internal pure returns (uint40) {
        return uint40(UpdateWord.unwrap(word) >> 64);
    }

    function trainSamples(UpdateWord word) internal pure returns (uint32) {
        return uint32(UpdateWord.unwrap(word) >> 104);
    }

    function testSamples(UpdateWord word) internal pure returns (uint32) {
        return uint32(UpdateWord.unwrap(word) >> 136);
    }

    function entry(UpdateWord word) internal pure returns (uint64) {
        return uint64(UpdateWord.unwrap(word) >> 168);
    }

    function flags(UpdateWord word) internal pure returns (uint8) {
        return uint8(UpdateWord.unwrap(word) >> 232);
    }

    function encoding(UpdateWord word) internal pure returns (uint8) {
        return uint8(UpdateWord.unwrap(word) >> 240);
    }
}
