"""A key that the ledger has as a peer's and that is not in its state folder: told, never passed over.

What takes its place is a fresh key (:func:`fl_node.key_keeping.tend`), never the one before: that may have been
superseded because somebody else had seen it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fl_node.key_keeping import Secrecy, announced_key, sealed_to
from fl_node.prefix import Prefix
from fl_node.records import UpdateRef
from fl_node.sealing.keytext import recipient_text


@dataclass(frozen=True, slots=True)
class Lost:
    """``public``: the key. ``updates``: those that were encrypted to it, are still kept by the federation, and are not
    in the vault, in the order of the log."""

    public: bytes
    updates: tuple[UpdateRef, ...]

    def told(self) -> str:
        """In words, with what can be done."""
        if not self.updates:
            what = "no update that is still kept needs it"
        elif len(self.updates) == 1:
            what = f"{self.updates[0]} cannot be read here without it"
        else:
            first, last = self.updates[0], self.updates[-1]
            what = f"{len(self.updates)} updates, from {first} to {last} on the ledger, cannot be read here without it"
        return (
            f"the private half of {recipient_text(self.public)}, which the ledger has as this peer's key, is not in "
            f"the state folder; {what}. A fresh key takes its place. Put its file back if there is a copy, and start "
            "again; otherwise ask a member to `fl-node share` what is needed"
        )


def lost_key(secrecy: Secrecy, prefix: Prefix, number: int, oldest_round: int = 0) -> Lost | None:
    """The key that a peer announced last, if its private half is not here.

    Args:
        oldest_round: the first round whose content is still kept.

    Raises:
        KeyringError: the vault cannot be read.
    """
    public = announced_key(prefix, number)
    if not any(public) or secrecy.keys.find(public) is not None:
        return None
    gone = [
        entry
        for entry in sealed_to(prefix, number, public)
        if entry.round >= oldest_round and not secrecy.vault.has(entry.content)
    ]
    return Lost(public, tuple(entry.ref for entry in sorted(gone, key=lambda entry: entry.index)))
