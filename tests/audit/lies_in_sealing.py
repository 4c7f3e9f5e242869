"""Tamperings with encryption and encoding, by who publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import zstandard
from given import Given, given
from playing import Lie, Model, with_update
from tampering import begun, case, ref, told

from fl_node.records import ZSTD, Encoding, Flag, Update
from fl_node.sealing import age
from fl_node.sealing.age import Identity

SEALING = "Encryption and encoding"
STRANGER = Identity.generate()
STANZA = b"-> X25519 TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc\nEmECAEcKN+n/Vs9SbWiV+Hu0r+E8R77DdWYyd83nw7U\n"


def sealed(lies: dict[str, Lie], **more: Any) -> Given:
    return told(lies, encrypt=True, **more)


def small(lies: dict[str, Lie], **more: Any) -> Given:
    """In an encrypted federation that publishes changes."""
    return sealed(lies, encoding="int8-delta", rounds=3, **more)


@case(
    SEALING,
    "an update in the clear where the spec encrypts",
    "sealed",
    "failed",
    "it is in the clear, the spec says encrypted",
    on="2#2",
    also=["2#2 well-formed", "2#2 commitment"],
)
def in_the_clear() -> Given:
    plain: list[bytes] = []

    def seen(payload: bytes) -> bytes:
        plain.append(payload)
        return payload

    return sealed({"2#2": Lie(payload=seen, blob=lambda _: plain[-1], update=unflagged)})


def unflagged(update: Update) -> Update:
    return replace(update, flags=Flag(0), sealed_at=0)


@case(
    SEALING,
    "an update encrypted where the spec does not",
    "sealed",
    "failed",
    "it is encrypted, the spec says in the clear",
    on="2#2",
    also=["2#2 well-formed", "2#2 commitment"],
)
def encrypted_unasked() -> Given:
    return told({"2#2": Lie(blob=by_stranger, update=lambda update: replace(update, flags=update.flags | 2))})


def by_stranger(blob: bytes) -> bytes:
    return bytes(age.seal(blob, [STRANGER.public]))


@case(
    SEALING,
    "a member left out of the readers",
    "sealed",
    "failed",
    "somebody was left out",
    on="2#2",
    also=["5#1 report"],
)
def left_out() -> Given:
    return sealed({"2#2": Lie(recipients=lambda keys: keys[:-1])})


@case(
    SEALING,
    "a stranger among the readers",
    "sealed",
    "suspicious",
    "encrypted for 5 recipients, more than the 4 readers that the log had",
    on="2#2",
)
def stranger_reads() -> Given:
    play = begun(encrypt=True)
    play.lies["2#2"] = Lie(recipients=lambda keys: [*keys, STRANGER.public])
    play.turn(2, 2)
    play.turn(3, 2)
    return given(play)


@case(
    SEALING,
    "a member left out, and nobody but the member can tell",
    "report",
    "outlier",
    "they are encrypted, and maybe not for this peer",
    on="3#1",
)
def swapped_reader() -> Given:
    """A stranger in the member's place: the count is right. The member objects, and others had no trouble."""
    play = begun(0, encrypt=True)
    third = play.identities[3].public
    play.lies["2#1"] = Lie(recipients=lambda keys: [STRANGER.public if key == third else key for key in keys])
    for number in (1, 2):
        for peer in (1, 2, 4, 3):
            play.turn(peer, number)
    return given(play)


@case(
    SEALING,
    "encrypted for the readers of an earlier log",
    "sealed",
    "failed",
    "who came since is left out",
    on="2#2",
)
def sealed_long_ago() -> Given:
    play = begun(encrypt=True)
    before = play.update("2#1").index
    play.lies["2#2"] = with_update(sealed_at=before)
    play.turn(2, 2)
    return given(play)


@case(
    SEALING,
    "encrypted for the readers of a log that is still to come",
    "sealed",
    "failed",
    "which is after its own entry",
    on="2#2",
    also=["2#2 membership"],
)
def sealed_ahead() -> Given:
    play = begun(encrypt=True)
    play.lies["2#2"] = with_update(sealed_at=1_000)
    play.turn(2, 2, force=True)
    return given(play)


@case(
    SEALING,
    "no age file",
    "sealed",
    "failed",
    "expected an age file",
    on="2#2",
    also=["2#2 well-formed", "2#2 commitment"],
)
def no_age_file() -> Given:
    return sealed({"2#2": Lie(blob=lambda blob: b"once " + blob)})


@case(
    SEALING,
    "an age file cut short",
    "well-formed",
    "failed",
    "cut",
    on="2#2",
    also=["2#2 commitment"],
)
def age_cut_short() -> Given:
    return sealed({"2#2": Lie(blob=lambda blob: blob[:-30])})


@case(
    SEALING,
    "an age file with a changed byte",
    "well-formed",
    "failed",
    "cut or altered",
    on="2#2",
    also=["2#2 commitment"],
)
def age_altered() -> Given:
    return sealed({"2#2": Lie(blob=lambda blob: blob[:-5] + bytes([blob[-5] ^ 1]) + blob[-4:])})


def for_so_many(count: int) -> Callable[[bytes], bytes]:
    """The same file for more recipients, whoever they are."""

    def crowd(blob: bytes) -> bytes:
        first = blob.index(b"\n") + 1
        return blob[:first] + STANZA * count + blob[first:]

    return crowd


@case(
    SEALING,
    "an age file for 260 recipients, which takes readers seconds to open",
    "sealed",
    "failed",
    "for more than 257 recipients",
    on="2#2",
    also=["2#2 well-formed", "2#2 commitment"],
)
def too_many() -> Given:
    return sealed({"2#2": Lie(blob=for_so_many(255))})


@case(
    SEALING,
    "an age file for 10,000 recipients, which takes readers hours to open",
    "well-formed",
    "failed",
    "expected at most",
    on="2#2",
    also=["2#2 sealed", "2#2 commitment"],
)
def ten_thousand() -> Given:
    return sealed({"2#2": Lie(blob=for_so_many(10_000))})


@case(
    SEALING,
    "content that inflates to a thousand times its size",
    "well-formed",
    "failed",
    "the zstd frame holds 16777216 bytes",
    on="2#1",
    also=["2#1 commitment"],
)
def bomb() -> Given:
    def inflating(_: bytes) -> bytes:
        return zstandard.compress(bytes(1 << 24))

    zipped = {"encoding": Encoding.SAFETENSORS | ZSTD}
    return sealed({"2#1": Lie(payload=inflating, update=lambda update: replace(update, **zipped))})


@case(
    SEALING,
    "other weights encrypted than were committed to",
    "commitment",
    "failed",
    "give the commitment",
    on="2#2",
)
def other_plaintext() -> Given:
    return sealed({"2#2": Lie(payload=lambda data: data[:-4] + np.float32(0.125).tobytes())})


def refers(to: str) -> Lie:
    return Lie(update=lambda update: replace(update, refers_to=ref(to).packed()))


#: What is a change of such a one cannot be read either, and is its publisher's as well.
NO_REFERENCE = [f"2#{number} {check}" for number in (2, 3) for check in ("sealed", "well-formed", "commitment")]
EARLIER = "expected an earlier update of its publisher"


@case(SEALING, "a change of itself", "sealed", "failed", EARLIER, on="2#2", also=NO_REFERENCE)
def of_itself() -> Given:
    return small({"2#2": refers("2#2")})


@case(SEALING, "a change of an update that is still to come", "sealed", "failed", EARLIER, on="2#2", also=NO_REFERENCE)
def of_the_future() -> Given:
    return small({"2#2": refers("2#3")})


@case(SEALING, "a change of another's update", "sealed", "failed", EARLIER, on="2#2", also=NO_REFERENCE)
def of_anothers() -> Given:
    return small({"2#2": refers("1#1")})


@case(
    SEALING,
    "a reference to a reference to a reference, deeper than the spec allows",
    "sealed",
    "failed",
    "is more than 2 references away from a full update",
    on="2#4",
    also=["2#4 well-formed", "2#4 commitment"],
)
def too_deep() -> Given:
    lies = {"2#3": refers("2#2"), "2#4": refers("2#3")}  # both are whole
    return given(begun(4, encrypt=True, encoding="int8-delta", full="f32", full_every=2, lies=lies))


@case(
    SEALING,
    "an encoding that the spec does not name",
    "sealed",
    "failed",
    "it is written as int8-delta, the spec says f16",
    on="2#2",
)
def other_encoding() -> Given:
    play = begun(encoding="f16")
    was = play.spec
    play.encoding = "int8-delta"
    play.spec = was.model_copy(update={"encoding": was.encoding.model_copy(update={"kind": "int8-delta"})})
    play.turn(2, 2)
    play.spec, play.encoding = was, "f16"
    play.turn(3, 2)
    return given(play)


@case(
    SEALING,
    "a closing update that is not exact",
    "sealed",
    "failed",
    "a closing update is its base to the bit, so expected f32; it is written as f16",
    on="2#2",
    also=["2#2 merge"],
)
def inexact_closing() -> Given:
    def halved(model: Model) -> Model:
        return {name: array.astype(np.float16).astype(np.float32) for name, array in model.items()}

    lie = Lie(model=halved, update=lambda update: replace(update, encoding=Encoding.F16))
    return told({"2#2": lie}, encoding="f16", rounds=1)
