// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The ledger of one federation: who published which model update, merged from which others, and what others say.
/// @notice Append-only. Every event this contract emits is one entry of the log and one leaf of an RFC 6962 Merkle tree:
///
///     leaf = SHA-256(0x00 || topic 0 || ... || topic n || data)      the raw event log is the preimage
///     node = SHA-256(0x01 || left || right)
///     root of the empty tree = SHA-256("")
///
///         Topic 1 of every event is the entry index, from 0 and contiguous. No entry is ever changed or removed, by
///         anybody; there is no proxy. So a copy of the logs of this address, from anywhere, is checked against `root()`.
/// @dev Scores and shares are in parts per million (ppm). Times are block times, seconds since 1970. An update is named for
///      ever by (peer number, sequence), both from 1.
interface IModelLedger {
    // ------------------------------------------------------------------------------------------------------- records

    /// @notice What a peer records when it publishes an update.
    struct Update {
        /// SHA-256 digest inside the CID of the published bytes; never zero.
        bytes32 content;
        /// Bit 0: the CID is a dag-pb root (else raw). Bit 1: the bytes are encrypted. Bit 2: final, the closing update.
        uint8 flags;
        /// How the bytes carry the weights. 0: safetensors with all tensors.
        uint8 encoding;
        /// For encodings that need another update (deltas): its (peer number << 32 | sequence). 0: none.
        uint64 refersTo;
        /// Commitment to the decoded tensors: SHA-256(domain, chain, contract, peer, sequence, digest of the tensors).
        bytes32 weights;
        /// Digest of the tensors of the merged weights that the training started from.
        bytes32 base;
        /// SHA-256 digest inside the CID of a public JSON report (metrics, privacy spent, outcome of each candidate).
        bytes32 report;
        /// Size of the log that the choice of parents was made from; it covers the publisher's previous update.
        uint64 seen;
        /// Root of the log at size `seen`, as the publisher had it: a signed checkpoint. Not checked by the contract.
        bytes32 seenRoot;
        /// Size of the log that fixed the recipients of the encrypted bytes. 0: not encrypted.
        uint64 sealedAt;
        /// The publisher's own count of updates: 1, 2, 3, ... without gaps.
        uint32 sequence;
        /// Own previous round < round <= highest round on the ledger + 1.
        uint32 round;
        /// The publisher's claim for this update on its own test split, ppm, higher is better, at most 1,000,000.
        uint32 score;
        /// The same claim for the base.
        uint32 baseScore;
        /// Training samples.
        uint32 trainSamples;
        /// Test samples.
        uint32 testSamples;
        /// Aggregation rule that made the base.
        uint16 rule;
        /// For what comes later; at most 256 bytes.
        bytes extra;
    }

    /// @notice One update that was considered for a base.
    struct Parent {
        /// Number of the peer that published it.
        uint32 peer;
        /// Its sequence. Parents stand in strictly ascending order of (peer, sequence).
        uint32 sequence;
        /// First four bytes of its content digest: a reorganised chain cannot make this entry mean another update.
        bytes4 tag;
        /// Integer weight in ppm. All shares of an update sum to 1,000,000. 0: considered, not merged.
        uint32 share;
    }

    /// @notice One peer's pair of scores for another peer's update, measured on its own data.
    struct Attestation {
        /// Number of the peer that published the update.
        uint32 peer;
        /// Sequence of the update.
        uint32 sequence;
        /// Score of the update, ppm, at most 1,000,000.
        uint32 score;
        /// Score of the update's base, ppm, at most 1,000,000.
        uint32 baseScore;
    }

    /// @notice A member from the first block on, as given to the constructor.
    struct Member {
        /// Account that signs for the peer.
        address account;
        /// The organisation behind the peer, a pseudonym. One vote per site.
        bytes32 site;
        /// Sum of: 1 publish, 2 attest, 4 read.
        uint8 roles;
    }

    /// @notice The log and its surroundings, all as of one block.
    struct State {
        /// Number of entries.
        uint64 size;
        /// RFC 6962 root over all entries.
        bytes32 root;
        /// Highest round of any update.
        uint32 highestRound;
        /// Number of peers ever admitted; peer numbers run from 1 to this.
        uint32 members;
        /// Least number of seconds between two updates of a peer.
        uint32 minInterval;
        /// Block of this answer.
        uint64 blockNumber;
        /// Time of that block.
        uint64 blockTime;
        /// Chain of this answer.
        uint256 chainId;
        /// SHA-256 of the federation's spec.
        bytes32 specDigest;
        /// Who may admit and retire.
        address owner;
    }

    /// @notice A peer as the ledger holds it now.
    struct PeerState {
        /// Peer number, from 1.
        uint32 number;
        /// Account that signs for the peer.
        address account;
        /// The organisation behind the peer.
        bytes32 site;
        /// Sum of: 1 publish, 2 attest, 4 read.
        uint8 roles;
        /// Sequence of the latest update; 0: none yet.
        uint32 sequence;
        /// Round of the latest update; 0: none yet.
        uint32 round;
        /// Entry index of the latest update, or of the admission while there is none.
        uint64 lastEntry;
        /// Time of the latest update; 0: none yet.
        uint64 lastTime;
        /// Epoch of the latest announcement; 0: none yet.
        uint32 epoch;
        /// Whether the peer has been retired.
        bool retired;
        /// If retired: entries of this peer from this index on are not to be counted.
        uint64 retiredFrom;
    }

    /// @notice What the contract's state keeps of an update; the rest is in its event, at `entry`.
    struct UpdateState {
        /// SHA-256 digest inside the CID of the published bytes.
        bytes32 content;
        /// Round.
        uint32 round;
        /// The publisher's claim, ppm.
        uint32 score;
        /// Block time of the entry.
        uint64 time;
        /// Training samples.
        uint32 trainSamples;
        /// Test samples.
        uint32 testSamples;
        /// Entry index.
        uint64 entry;
        /// As published.
        uint8 flags;
        /// As published.
        uint8 encoding;
    }

    // -------------------------------------------------------------------------------------------------------- events

    /// @notice Entry 0. Binds the log to a chain, a contract, a spec and the initial weights.
    /// @param index Entry index, 0.
    /// @param time Block time.
    /// @param chainId Chain that the ledger was deployed on.
    /// @param ledger Address of this contract.
    /// @param specDigest SHA-256 of the bytes of the spec.
    /// @param genesisContent SHA-256 digest inside the CID of the initial weights.
    /// @param genesisWeights Digest of the tensors of the initial weights.
    /// @param genesisFlags Bit 0: the genesis CID is a dag-pb root (else raw).
    /// @param minInterval Least number of seconds between two updates of a peer.
    /// @param owner Who may admit and retire.
    event LedgerOpened(
        uint64 indexed index,
        uint64 time,
        uint256 chainId,
        address ledger,
        bytes32 specDigest,
        bytes32 genesisContent,
        bytes32 genesisWeights,
        uint8 genesisFlags,
        uint32 minInterval,
        address owner
    );

    /// @notice Somebody else may admit and retire from here on.
    /// @param index Entry index.
    /// @param time Block time.
    /// @param previous Owner before.
    /// @param current Owner from this entry on.
    event OwnerChanged(uint64 indexed index, uint64 time, address previous, address current);

    /// @notice A peer became a member. An account is one peer for ever.
    /// @param index Entry index.
    /// @param peer Peer number: 1, 2, 3, ... in order of admission.
    /// @param time Block time.
    /// @param account Account that signs for the peer.
    /// @param site The organisation behind the peer. A replacement for a lost key is a new peer of the same site.
    /// @param roles Sum of: 1 publish, 2 attest, 4 read.
    event PeerAdmitted(
        uint64 indexed index, uint32 indexed peer, uint64 time, address account, bytes32 site, uint8 roles
    );

    /// @notice A peer can write no more. What it wrote stays.
    /// @param index Entry index.
    /// @param peer Peer number.
    /// @param time Block time.
    /// @param fromIndex Entries of this peer from this index on are not to be counted (a stolen key); `index` itself or
    ///        the log's size before this entry means: everything so far counts.
    /// @param reason Free text, at most 256 bytes.
    event PeerRetired(uint64 indexed index, uint32 indexed peer, uint64 time, uint64 fromIndex, string reason);

    /// @notice Where a peer serves content and which keys it has, from this entry on.
    /// @param index Entry index.
    /// @param peer Peer number.
    /// @param time Block time.
    /// @param epoch 1, 2, 3, ...: the peer's own count of announcements.
    /// @param recipientKey Public key that others encrypt to. Zero: none.
    /// @param tlsPin SHA-256 of the public key of the endpoint's certificate. Zero: none.
    /// @param endpoint URL of the peer's content gateway, at most 256 bytes. Empty: it serves none.
    event PeerAnnounced(
        uint64 indexed index,
        uint32 indexed peer,
        uint64 time,
        uint32 epoch,
        bytes32 recipientKey,
        bytes32 tlsPin,
        string endpoint
    );

    /// @notice A peer published an update.
    /// @param index Entry index.
    /// @param peer Number of the publisher.
    /// @param round Same as `update.round`.
    /// @param time Block time.
    /// @param update The update.
    /// @param parents What was considered for its base, at most 64. None: the base is the genesis.
    event UpdatePublished(
        uint64 indexed index, uint32 indexed peer, uint32 indexed round, uint64 time, Update update, Parent[] parents
    );

    /// @notice A peer measured updates of others on its own data.
    /// @param index Entry index.
    /// @param peer Number of the attesting peer.
    /// @param time Block time.
    /// @param evidence SHA-256 digest inside the CID of a public report. Zero: none.
    /// @param items One to 64 updates with scores.
    event UpdatesAttested(
        uint64 indexed index, uint32 indexed peer, uint64 time, bytes32 evidence, Attestation[] items
    );

    /// @notice A peer says that it could not use an update; or, as its publisher, that it withdraws it.
    /// @param index Entry index.
    /// @param peer Number of the objecting peer.
    /// @param time Block time.
    /// @param target Number of the peer that published the update.
    /// @param sequence Sequence of the update.
    /// @param reason 1 unavailable, 2 malformed, 3 digest mismatch, 4 withdrawn (by its publisher only, who has no other).
    /// @param evidence SHA-256 digest inside the CID of a public report. Zero: none.
    event UpdateObjected(
        uint64 indexed index,
        uint32 indexed peer,
        uint64 time,
        uint32 target,
        uint32 sequence,
        uint8 reason,
        bytes32 evidence
    );

    // -------------------------------------------------------------------------------------------------------- errors

    /// @notice The account is not a member and never was.
    /// @param account Account that was given or that sent the transaction.
    error NotMember(address account);

    /// @notice The peer is retired and can write no more.
    /// @param peer Peer number.
    /// @param fromIndex From which entry on its entries are not to be counted.
    error PeerIsRetired(uint32 peer, uint64 fromIndex);

    /// @notice The peer lacks the role for this.
    /// @param peer Peer number.
    /// @param got Roles that it has.
    /// @param expected Roles of which it needs at least one.
    error RoleMissing(uint32 peer, uint8 got, uint8 expected);

    /// @notice The account is a member already, or was: an account is one peer for ever.
    /// @param account Account that was given.
    /// @param peer Its peer number.
    error AccountKnown(address account, uint32 peer);

    /// @notice The zero account cannot be a member or an owner.
    /// @param account Account that was given.
    error AccountZero(address account);

    /// @notice Roles out of range.
    /// @param got Roles that were given.
    /// @param least 1.
    /// @param most 7.
    error RolesOutOfRange(uint8 got, uint8 least, uint8 most);

    /// @notice The sender is neither the owner nor the peer itself.
    /// @param sender Who asked to retire the peer.
    /// @param owner The owner.
    /// @param account The peer's account.
    error NotOwnerNorSelf(address sender, address owner, address account);

    /// @notice A ledger without an owner could not replace a lost key; transfer the ownership instead.
    /// @param owner The owner that stays.
    error OwnerCannotRenounce(address owner);

    /// @notice A list is too short or too long.
    /// @param got Its length.
    /// @param least Least length.
    /// @param most Greatest length.
    error LengthOutOfRange(uint256 got, uint256 least, uint256 most);

    /// @notice The sequence is not the publisher's next one. Lower: that update is on the ledger already.
    /// @param got Sequence that was given.
    /// @param expected The publisher's next sequence.
    error SequenceNotNext(uint32 got, uint32 expected);

    /// @notice The round is not above the publisher's previous one, or runs ahead of the federation.
    /// @param got Round that was given.
    /// @param least Own previous round + 1.
    /// @param most Highest round on the ledger + 1.
    error RoundOutOfRange(uint32 got, uint32 least, uint32 most);

    /// @notice `seen` does not cover the publisher's previous update (or its admission), or exceeds the log.
    /// @param got Size that was given.
    /// @param least Index of that entry + 1.
    /// @param most Size of the log.
    error SeenOutOfRange(uint64 got, uint64 least, uint64 most);

    /// @notice `sealedAt` or `fromIndex` exceeds the log.
    /// @param got Size or index that was given.
    /// @param most Size of the log.
    error BeyondLog(uint64 got, uint64 most);

    /// @notice The publisher's previous update was less than the minimum interval ago.
    /// @param got Block time.
    /// @param expected Earliest time at which it may publish.
    error TooSoon(uint64 got, uint64 expected);

    /// @notice A score above 1,000,000 ppm.
    /// @param got Score that was given.
    /// @param most 1,000,000.
    error ScoreTooHigh(uint32 got, uint32 most);

    /// @notice The content digest is zero.
    /// @param sequence Sequence of the update.
    error ContentZero(uint32 sequence);

    /// @notice A parent does not come after the one before it.
    /// @param position Position in the list, from 0.
    /// @param got (peer << 32 | sequence) of the parent.
    /// @param previous The same of the one before.
    error ParentsNotAscending(uint256 position, uint64 got, uint64 previous);

    /// @notice There is no such update on the ledger.
    /// @param peer Number of the named publisher.
    /// @param sequence Named sequence.
    error UnknownUpdate(uint32 peer, uint32 sequence);

    /// @notice The tag of a parent is not that of the update on this chain.
    /// @param peer Number of the parent's publisher.
    /// @param sequence The parent's sequence.
    /// @param got Tag that was given.
    /// @param expected First four bytes of the content digest on the ledger.
    error TagMismatch(uint32 peer, uint32 sequence, bytes4 got, bytes4 expected);

    /// @notice The shares do not sum to the whole.
    /// @param got Their sum.
    /// @param expected 1,000,000.
    error SharesNotWhole(uint256 got, uint256 expected);

    /// @notice A peer cannot attest its own update.
    /// @param peer Peer number.
    /// @param sequence Sequence of the update.
    error OwnUpdate(uint32 peer, uint32 sequence);

    /// @notice This peer attested this update before.
    /// @param peer Number of the attesting peer.
    /// @param target Number of the publisher.
    /// @param sequence Sequence of the update.
    error AlreadyAttested(uint32 peer, uint32 target, uint32 sequence);

    /// @notice This peer objected to this update before.
    /// @param peer Number of the objecting peer.
    /// @param target Number of the publisher.
    /// @param sequence Sequence of the update.
    error AlreadyObjected(uint32 peer, uint32 target, uint32 sequence);

    /// @notice The reason is not open to this peer: a publisher can only withdraw (4), others only object (1 to 3).
    /// @param got Reason that was given.
    /// @param least Least reason that is open.
    /// @param most Greatest reason that is open.
    error ReasonOutOfRange(uint8 got, uint8 least, uint8 most);

    /// @notice The epoch is not the peer's next one.
    /// @param got Epoch that was given.
    /// @param expected Its next epoch.
    error EpochNotNext(uint32 got, uint32 expected);

    /// @notice There is no peer of this number.
    /// @param got Number that was asked for.
    /// @param most Highest peer number.
    error UnknownPeer(uint32 got, uint32 most);

    // ----------------------------------------------------------------------------------------------------- functions

    /// @notice Make an account a member. By the owner.
    /// @param account Account that signs for the new peer; never a member before.
    /// @param site The organisation behind it.
    /// @param roles Sum of: 1 publish, 2 attest, 4 read.
    function admit(address account, bytes32 site, uint8 roles) external;

    /// @notice End a peer's membership. By the owner or by the peer itself. Nothing is removed.
    /// @param account The peer's account.
    /// @param reason Free text, at most 256 bytes.
    /// @param fromIndex Entries of the peer from this index on are not to be counted; at most the size of the log.
    function retire(address account, string calldata reason, uint64 fromIndex) external;

    /// @notice Tell where to find this peer's content and keys. By any member.
    /// @param epoch The sender's previous epoch + 1.
    /// @param recipientKey Public key that others encrypt to. Zero: none.
    /// @param tlsPin SHA-256 of the public key of the endpoint's certificate. Zero: none.
    /// @param endpoint URL of the content gateway, at most 256 bytes.
    function announce(uint32 epoch, bytes32 recipientKey, bytes32 tlsPin, string calldata endpoint) external;

    /// @notice Record an update whose bytes are in the content store. Role: publish.
    /// @param update The update.
    /// @param parents At most 64, strictly ascending by (peer, sequence), shares summing to 1,000,000; or none.
    function publish(Update calldata update, Parent[] calldata parents) external;

    /// @notice Record scores for others' updates. Role: attest. Once per peer and update.
    /// @param evidence SHA-256 digest inside the CID of a public report. Zero: none.
    /// @param items One to 64 updates with scores.
    function attest(bytes32 evidence, Attestation[] calldata items) external;

    /// @notice Record that an update could not be used. Role: publish or attest. Once per peer and update.
    /// @param target Number of the publisher.
    /// @param sequence Sequence of the update.
    /// @param reason 1 unavailable, 2 malformed, 3 digest mismatch; 4 withdrawn, by its publisher only.
    /// @param evidence SHA-256 digest inside the CID of a public report. Zero: none.
    function object(uint32 target, uint32 sequence, uint8 reason, bytes32 evidence) external;

    // --------------------------------------------------------------------------------------------------------- views

    /// @return Number of entries.
    function size() external view returns (uint64);

    /// @return RFC 6962 root over all entries.
    function root() external view returns (bytes32);

    /// @return The log and its surroundings, all as of one block.
    function state() external view returns (State memory);

    /// @return SHA-256 of the bytes of the federation's spec.
    function specDigest() external view returns (bytes32);

    /// @return content SHA-256 digest inside the CID of the initial weights.
    /// @return weights Digest of their tensors.
    /// @return flags Bit 0: the CID is a dag-pb root (else raw).
    function genesis() external view returns (bytes32 content, bytes32 weights, uint8 flags);

    /// @param account Any account.
    /// @return Its peer number, or 0 if it never was a member.
    function numberOf(address account) external view returns (uint32);

    /// @param number Peer number.
    /// @return The peer; reverts if there is none.
    function peer(uint32 number) external view returns (PeerState memory);

    /// @param start First peer number wanted.
    /// @param limit Greatest number of peers wanted, at most 256.
    /// @return Peers in order of number; empty beyond the last.
    function peers(uint32 start, uint32 limit) external view returns (PeerState[] memory);

    /// @param number Number of the publisher.
    /// @param sequence Sequence of the update.
    /// @return What the state keeps of it; reverts if there is none.
    function update(uint32 number, uint32 sequence) external view returns (UpdateState memory);

    /// @param number Number of the publisher.
    /// @param start First sequence wanted.
    /// @param limit Greatest number of updates wanted, at most 256.
    /// @return Its updates in order of sequence; empty beyond the last.
    function updates(uint32 number, uint32 start, uint32 limit) external view returns (UpdateState[] memory);

    /// @param by Number of a peer.
    /// @param target Number of the publisher.
    /// @param sequence Sequence of the update.
    /// @return Whether that peer attested that update.
    function attested(uint32 by, uint32 target, uint32 sequence) external view returns (bool);

    /// @param by Number of a peer.
    /// @param target Number of the publisher.
    /// @param sequence Sequence of the update.
    /// @return Whether that peer objected to that update.
    function objected(uint32 by, uint32 target, uint32 sequence) external view returns (bool);
}
