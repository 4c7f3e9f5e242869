// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The ledger of one federation: who published which model update, merged from which others, and what others say.
interface IModelLedger {
    struct Update {
        bytes32 content;
        uint8 flags;
        uint8 encoding;
        uint64 refersTo;
        bytes32 weights;
        bytes32 base;
        bytes32 report;
        uint64 seen;
        bytes32 seenRoot;
        uint64 sealedAt;
        uint32 sequence;
        uint32 round;
        uint32 score;
        uint32 baseScore;
        uint32 trainSamples;
        uint32 testSamples;
        uint16 rule;
        bytes extra;
    }

    struct Parent {
        uint32 peer;
        uint32 sequence;
        bytes4 tag;
        uint32 share;
    }

    struct Attestation {
        uint32 peer;
        uint32 sequence;
        uint32 score;
        uint32 baseScore;
    }

    struct Member {
        address account;
        bytes32 site;
        uint8 roles;
    }

    event LedgerOpened(
        uint64 indexed index, uint64 time, uint256 chainId, address ledger, bytes32 specDigest,
        bytes32 genesisContent, bytes32 genesisWeights, uint8 genesisFlags, uint32 minInterval, address owner
    );
    event OwnerChanged(uint64 indexed index, uint64 time, address previous, address current);
    event PeerAdmitted(uint64 indexed index, uint32 indexed peer, uint64 time, address account, bytes32 site, uint8 roles);
    event PeerRetired(uint64 indexed index, uint32 indexed peer, uint64 time, uint64 fromIndex, string reason);
    event PeerAnnounced(
        uint64 indexed index, uint32 indexed peer, uint64 time, uint32 epoch, bytes32 recipientKey, bytes32 tlsPin, string endpoint
    );
    event UpdatePublished(
        uint64 indexed index, uint32 indexed peer, uint32 indexed round, uint64 time, Update update, Parent[] parents
    );
    event UpdatesAttested(uint64 indexed index, uint32 indexed peer, uint64 time, bytes32 evidence, Attestation[] items);
    event UpdateObjected(
        uint64 indexed index, uint32 indexed peer, uint64 time, uint32 target, uint32 sequence, uint8 reason, bytes32 evidence
    );

    function admit(address account, bytes32 site, uint8 roles) external;
    function retire(address account, string calldata reason, uint64 fromIndex) external;
    function announce(uint32 epoch, bytes32 recipientKey, bytes32 tlsPin, string calldata endpoint) external;
    function publish(Update calldata update, Parent[] calldata parents) external;
    function attest(bytes32 evidence, Attestation[] calldata items) external;
    function object(uint32 target, uint32 sequence, uint8 reason, bytes32 evidence) external;
}
