"""The audit: every claim of the ledger checked from log, transactions and bytes, without torch and without a key."""
