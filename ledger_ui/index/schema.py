"""Tables that the explorer keeps beside the log's own, in the same SQLite file.

All of them follow from the log (``fold``, ``replayed``), or were fetched and are checked against it (``harvest``), or
are results of audits (``jobs``): the file may be deleted at any time, and is made again.
"""

from __future__ import annotations

from typing import Final

#: Another number where a table means something else: the derived tables are then made again from the log.
VERSION: Final = 2

#: What follows from the log. Numbers named ``idx``, ``child``, ``parent``, ``update_idx`` are entry indices. A site is
#: known by the number of its first peer.
FOLDED: Final = """
CREATE TABLE IF NOT EXISTS ui_state (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kinds (kind TEXT PRIMARY KEY, entries INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sites (site INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS peers (
    peer INTEGER PRIMARY KEY, account TEXT, site INTEGER, roles INTEGER, admitted INTEGER, round_at_admission INTEGER,
    retired INTEGER, retired_from INTEGER, reason TEXT);
CREATE INDEX IF NOT EXISTS peers_account ON peers (account);
CREATE INDEX IF NOT EXISTS peers_site ON peers (site);
CREATE TABLE IF NOT EXISTS announcements (
    idx INTEGER PRIMARY KEY, peer INTEGER, epoch INTEGER, recipient_key BLOB, tls_pin BLOB, endpoint TEXT);
CREATE INDEX IF NOT EXISTS announcements_peer ON announcements (peer, idx);
CREATE TABLE IF NOT EXISTS updates (
    idx INTEGER PRIMARY KEY, peer INTEGER, sequence INTEGER, site INTEGER, round INTEGER, time_s INTEGER,
    final INTEGER, flags INTEGER, content BLOB, weights BLOB, base BLOB, report BLOB, seen INTEGER, seen_root BLOB,
    score_ppm INTEGER, base_score_ppm INTEGER, train_samples INTEGER, test_samples INTEGER, rule INTEGER,
    encoding INTEGER, refers_to INTEGER, sealed_at INTEGER, extra BLOB, tx_hash BLOB,
    considered INTEGER, merged INTEGER,        -- parents of any share; with a share above 0
    children INTEGER DEFAULT 0,                -- updates that list it with a share, its publisher's own too
    merged_by INTEGER DEFAULT 0,               -- other peers with an update that counts and lists it with a share
    left_out_by INTEGER DEFAULT 0,             -- updates made from a merge that looked at it and left it out
    attestations INTEGER DEFAULT 0,            -- that count
    attested_sites INTEGER DEFAULT 0,          -- other sites than the publisher's among them
    attested_ppm INTEGER,                      -- lower median over those sites of each one's lower median
    objections INTEGER DEFAULT 0, withdrawn INTEGER DEFAULT 0,
    ignored TEXT,                              -- why it does not count; NULL: it counts
    state TEXT DEFAULT 'submitted',            -- merged, submitted, left-out, closing, ignored
    verdict TEXT, verdict_size INTEGER);       -- worst result of the last audit of it, and the log's size then
CREATE UNIQUE INDEX IF NOT EXISTS updates_ref ON updates (peer, sequence);
CREATE INDEX IF NOT EXISTS updates_claims ON updates (round, score_ppm) WHERE ignored IS NULL;
CREATE INDEX IF NOT EXISTS updates_words ON updates (round, attested_ppm)
    WHERE ignored IS NULL AND attested_ppm IS NOT NULL;
CREATE INDEX IF NOT EXISTS updates_content ON updates (content);
CREATE INDEX IF NOT EXISTS updates_weights ON updates (weights);
CREATE INDEX IF NOT EXISTS updates_base ON updates (base);
CREATE INDEX IF NOT EXISTS updates_report ON updates (report);
CREATE INDEX IF NOT EXISTS updates_clear ON updates (idx) WHERE flags & 2 = 0;
CREATE TABLE IF NOT EXISTS encodings (         -- how many updates are written how; encrypted: 0 or 1
    encoding INTEGER, encrypted INTEGER, updates INTEGER NOT NULL, PRIMARY KEY (encoding, encrypted)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS updates_encoded AFTER INSERT ON updates BEGIN
    INSERT INTO encodings VALUES (coalesce(NEW.encoding, 0), coalesce(NEW.flags >> 1 & 1, 0), 1)
    ON CONFLICT (encoding, encrypted) DO UPDATE SET updates = updates + 1; END;
CREATE TRIGGER IF NOT EXISTS updates_unencoded AFTER DELETE ON updates BEGIN
    UPDATE encodings SET updates = updates - 1
    WHERE encoding = coalesce(OLD.encoding, 0) AND encrypted = coalesce(OLD.flags >> 1 & 1, 0);
    DELETE FROM encodings WHERE updates = 0; END;
CREATE INDEX IF NOT EXISTS announcements_key ON announcements (recipient_key, idx, peer);
CREATE TABLE IF NOT EXISTS parents (
    child INTEGER, position INTEGER, parent INTEGER, peer INTEGER, sequence INTEGER, share_ppm INTEGER,
    PRIMARY KEY (child, position)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS parents_parent ON parents (parent, child);
CREATE TABLE IF NOT EXISTS attestations (
    update_idx INTEGER, idx INTEGER, peer INTEGER, score_ppm INTEGER, base_score_ppm INTEGER, evidence BLOB,
    PRIMARY KEY (update_idx, idx)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attestations_peer ON attestations (peer, idx);
CREATE INDEX IF NOT EXISTS attestations_idx ON attestations (idx);
CREATE TABLE IF NOT EXISTS objections (
    idx INTEGER PRIMARY KEY, update_idx INTEGER, peer INTEGER, reason INTEGER, evidence BLOB);
CREATE INDEX IF NOT EXISTS objections_update ON objections (update_idx);
CREATE INDEX IF NOT EXISTS objections_peer ON objections (peer, idx);
"""

#: What follows from the log and the spec together: selections replayed, and who was missing.
REPLAYED: Final = """
CREATE TABLE IF NOT EXISTS choices (idx INTEGER PRIMARY KEY, outcomes TEXT);  -- JSON; NULL: nothing follows
CREATE TABLE IF NOT EXISTS left_out (         -- by_idx -1: it came too late for anybody to look at it
    update_idx INTEGER, by_idx INTEGER, outcome TEXT, reason TEXT, PRIMARY KEY (update_idx, by_idx)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS left_out_by ON left_out (by_idx);
CREATE TABLE IF NOT EXISTS rounds (
    round INTEGER PRIMARY KEY, first INTEGER, last INTEGER,
    settled INTEGER,                           -- log size that it took to know that the next round began; 0: it is open
    told TEXT);                                -- JSON: a completeness RoundRow, and whether selections were replayed
CREATE TABLE IF NOT EXISTS absences (
    round INTEGER, peer INTEGER, state TEXT, PRIMARY KEY (round, peer)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS absences_peer ON absences (peer, round);
"""

#: What was fetched. ``status``: ok, gone, malformed, and so on, as the harvester says; times are local, seconds.
HARVESTED: Final = """
CREATE TABLE IF NOT EXISTS reports (
    idx INTEGER PRIMARY KEY, status TEXT, body BLOB, tried_at REAL, detail TEXT, digest BLOB, tries INTEGER,
    due_at REAL);                              -- when it is tried again; NULL: not any more
CREATE INDEX IF NOT EXISTS reports_due ON reports (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS holders (
    idx INTEGER PRIMARY KEY, haves INTEGER, lacks INTEGER, silent INTEGER, publisher INTEGER, size_bytes INTEGER,
    asked_at REAL, detail TEXT, content BLOB);
CREATE TABLE IF NOT EXISTS notes (
    signer TEXT, size INTEGER, note BLOB, root BLOB, trouble TEXT, seen_at REAL,
    peer INTEGER,                              -- the member that signed it; NULL: no member
    PRIMARY KEY (signer, size, root)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS notes_size ON notes (size);
CREATE INDEX IF NOT EXISTS holders_asked ON holders (asked_at);
CREATE TABLE IF NOT EXISTS transactions (
    tx_hash BLOB PRIMARY KEY, sender TEXT, gas_used INTEGER, raw BLOB, fetched_at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alarms (
    id INTEGER PRIMARY KEY, key TEXT, kind TEXT, text TEXT, detail TEXT, raised_at REAL, over_at REAL);
CREATE TABLE IF NOT EXISTS audits (
    id INTEGER PRIMARY KEY, scope TEXT, size INTEGER, root BLOB, state TEXT, asked_at REAL, ended_at REAL,
    verdict TEXT, told BLOB, detail TEXT);
CREATE INDEX IF NOT EXISTS audits_scope ON audits (scope, size);
CREATE TABLE IF NOT EXISTS verdicts (          -- findings of the last audit of each update, as it printed them
    idx INTEGER, position INTEGER, check_name TEXT, result TEXT, asked INTEGER, detail TEXT, data TEXT, repeat TEXT,
    alike TEXT,                                -- detail without what is this update's alone; NULL: ok
    audit INTEGER, PRIMARY KEY (idx, position)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS verdicts_result ON verdicts (result, check_name, alike, idx);
"""


#: What lists of updates are filtered and sorted by. Each index below has all of it, behind what it begins with, so that
#: any filter with any order reads one index and no row but those of the page.
_LISTED: Final = ("peer", "site", "round", "state", "score_ppm", "attested_ppm", "time_s", "verdict", "final", "flags")
_LISTS: Final = {
    "index": ("idx",),
    "peer": ("peer", "idx"),
    "site": ("site", "idx"),
    "round": ("round", "peer", "state", "idx"),
    "rounds": ("round", "idx"),
    "state": ("state", "idx"),
    "score": ("score_ppm", "idx"),
    "attested": ("attested_ppm", "idx"),
    "time": ("time_s", "idx"),
    "verdict": ("verdict", "idx"),
}
LISTS: Final = "".join(
    f"CREATE INDEX IF NOT EXISTS updates_{name} ON updates "
    f"({', '.join((*first, *(column for column in _LISTED if column not in first)))});\n"
    for name, first in _LISTS.items()
)


def _summed(table: str, column: str, key: str, of: str = "") -> str:
    """Triggers that keep a column's sum and how many rows have a value, since no request may add them up.

    Args:
        of: SQL function of the column that is summed.
    """

    def add(sign: str, row: str) -> str:
        return "".join(
            f"INSERT INTO ui_state VALUES ('{name}', {sign}{value}) "  # noqa: S608
            f"ON CONFLICT (key) DO UPDATE SET value = value {sign} {value}; "
            for name, value in (
                (key, f"coalesce({of}({row}.{column}), 0)"),
                (f"{key}_of", f"({row}.{column} IS NOT NULL)"),
            )
        )

    return "".join(
        f"CREATE TRIGGER IF NOT EXISTS {table}_{column}_{event} AFTER {event} ON {table} BEGIN {body}END;\n"
        for event, body in (
            ("insert", add("+", "NEW")),
            ("delete", add("-", "OLD")),
            ("update", add("-", "OLD") + add("+", "NEW")),
        )
    )


#: ``ui_state`` has under ``gas`` and ``bytes`` what is known of the log's transactions and contents, and under
#: ``gas_of`` and ``bytes_of`` of how many; ``reports``: bytes of reports that are kept here.
TOTALS: Final = (
    _summed("transactions", "gas_used", "gas")
    + _summed("holders", "size_bytes", "bytes")
    + _summed("reports", "body", "reports", "length")
)

#: Figures out of reports that are kept: see :mod:`ledger_ui.index.told`. Both sizes, or neither, for ratios.
_TOLD: Final = """
CREATE TABLE IF NOT EXISTS told (
    idx INTEGER PRIMARY KEY, peer INTEGER, round INTEGER, size_bytes INTEGER, update_bytes INTEGER, plain_bytes INTEGER,
    mechanism TEXT, epsilon REAL, delta REAL, budget REAL, sent_bytes INTEGER, received_bytes INTEGER);
CREATE INDEX IF NOT EXISTS told_peer ON told (peer, idx, update_bytes, plain_bytes, epsilon, sent_bytes);
CREATE INDEX IF NOT EXISTS told_round ON told (round, update_bytes, plain_bytes);
CREATE TRIGGER IF NOT EXISTS reports_untold AFTER DELETE ON reports BEGIN
    DELETE FROM told WHERE idx = OLD.idx; END;
"""
TOLD: Final = (
    _TOLD + _summed("told", "update_bytes", "told_update_bytes") + _summed("told", "plain_bytes", "told_plain_bytes")
)

#: More ways into the log's own entries: by kind and by peer in the order of the log, and by the start of a leaf.
FOUND: Final = """
CREATE INDEX IF NOT EXISTS entries_peer ON entries (peer, idx, kind);
CREATE INDEX IF NOT EXISTS entries_in_kind ON entries (kind);
CREATE INDEX IF NOT EXISTS entries_leaf ON entries (substr(leaf, 1, 6));
CREATE INDEX IF NOT EXISTS updates_seen_root ON updates (seen_root);
"""

SCHEMA: Final = FOLDED + LISTS + FOUND + REPLAYED + HARVESTED + TOTALS + TOLD
#: In this order they are emptied: rows of ``updates`` that go are counted down in ``encodings``.
FOLDED_TABLES: Final = (
    *("kinds", "sites", "peers", "announcements", "updates", "encodings", "parents", "attestations", "objections"),
)
#: What was fetched for an entry, and goes with it.
FETCHED_BY_ENTRY: Final = ("reports", "holders", "verdicts")
REPLAYED_TABLES: Final = ("choices", "left_out", "rounds", "absences")
