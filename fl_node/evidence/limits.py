"""What an evidence pack may hold at most. A pack comes from a stranger: everything is counted before it is read."""

from __future__ import annotations

from typing import Final

#: Of the whole file. 1,000 updates of 25 MB take a tenth of it.
MOST_PACK_BYTES: Final = 1 << 38
#: Fewer than a ZIP file's plain counter holds, so that none needs the wide one.
MOST_FILES: Final = 65_000
#: Of the list of files at the ZIP file's end: 46 bytes, a path and at most 24 bytes of widths for each.
MOST_DIRECTORY_BYTES: Final = MOST_FILES * 200

MOST_PATH_BYTES: Final = 100
MOST_MANIFEST_BYTES: Final = 48 << 20
MOST_TEXT_BYTES: Final = 1 << 20
MOST_NOTE_BYTES: Final = 1 << 16
MOST_REPORT_BYTES: Final = 1 << 20
MOST_LINEAGE_BYTES: Final = 64 << 20
MOST_WEIGHTS_BYTES: Final = 1 << 35
#: Weights in a CAR take a section head for each MiB and a node for each GiB more.
MOST_CAR_BYTES: Final = MOST_WEIGHTS_BYTES + (MOST_WEIGHTS_BYTES >> 10)

#: Of a file of lines: how many, and of all of them.
MOST_LINES: Final = 1000
MOST_LINES_BYTES: Final = 8 << 20
#: A transaction has 128 KiB at most, its line twice as many characters; an entry's data are shorter.
MOST_LINE_BYTES: Final = 1 << 19

#: Of a log: entries, and bytes of all its lines. Both bound what a reader holds in memory.
MOST_ENTRIES: Final = 150_000
MOST_LOG_BYTES: Final = 256 << 20
MOST_CHECKPOINTS: Final = 1000
#: Findings about proofs that are kept one by one.
MOST_FINDINGS: Final = 1000
#: A proof is as long as the tree is high: more than that many hashes prove nothing.
MOST_PROOF_HASHES: Final = 64
