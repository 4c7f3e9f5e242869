"""Keys that a command is given to read encrypted updates with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fl_node import keys
from fl_node.audit.at_hand import AtHand
from fl_node.audit.means import Means
from fl_node.cli.text import safe
from fl_node.config import NodeConfig
from fl_node.decoding import Opening
from fl_node.errors import KeyringError
from fl_node.key_keeping import GivenKeys, Secrecy
from fl_node.sealing.age import Identity
from fl_node.sealing.identities import read_identities


def identities_of(arguments: argparse.Namespace) -> tuple[Identity, ...]:
    """The keys of the files that ``--identity`` names.

    Raises:
        KeyringError: a file that is none, or that others may read.
    """
    return tuple(identity for name in arguments.identities for identity in read_identities(Path(name)))


def warn(text: str) -> None:
    """Tell on standard error what did not keep a command from its work."""
    print(f"fl-node: warning: {safe(text)}", file=sys.stderr)


def own_secrecy(peer: NodeConfig, signer: keys.Signer) -> Secrecy:
    """A peer's keys and vault; what is damaged in the vault is told.

    Raises:
        KeyringError: they cannot be read, or others may read them.
    """
    return Secrecy.of(peer.state_path, signer, warn)


def keys_at_hand(identities: Sequence[Identity], peer: NodeConfig | None) -> AtHand | None:
    """Given keys, and those of a peer with its vault; ``None`` where there are neither.

    Args:
        peer: whose own keys are to be used; its password is asked for as by every command that needs the key.

    Raises:
        KeyringError: keys that cannot be read, or that others may read.
        KeystoreError: the peer's key cannot be opened.
    """
    openers: list[Opening] = [GivenKeys(identities)] if identities else []
    own = identities[0] if identities else None
    if peer is not None:
        signer = keys.unlock(peer.key_path, Path(peer.password_file) if peer.password_file else None)
        secrecy = own_secrecy(peer, signer)
        openers.insert(0, secrecy)
        own = next(iter(secrecy.keys.identities()), own)
        if own is None:
            raise KeyringError(
                f"{peer.state_path} has no keys yet; a peer makes its first one when it runs: name a file with "
                "--identity"
            )
    return None if own is None else AtHand(openers, own)


def with_keys(means: Means, identities: Sequence[Identity], peer: NodeConfig | None) -> tuple[Means, AtHand | None]:
    """Means with keys at hand, and these; as they are where nothing is encrypted.

    Raises:
        KeyringError, KeystoreError: as :func:`keys_at_hand`.
    """
    if means.federation is None or not means.federation.spec.privacy.encrypt:
        return means, None
    found = keys_at_hand(identities, peer)
    return replace(means, opener=found), found
