"""Peer-to-peer federated learning with a ledger that anyone can check."""

__version__ = "0.1.0"
