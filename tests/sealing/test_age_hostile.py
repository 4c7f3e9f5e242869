"""Age files of strangers: cut, altered, inflated, with what the library takes for ever over or panics on."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrage import passphrase

from fl_node.errors import FlNodeError, MalformedWeights, Unreadable
from fl_node.sealing import age
from fl_node.sealing.age import Identity, read_header, seal, unseal
from fl_node.sealing.header import MOST_HEADER_BYTES

ALICE = Identity.generate()
PLAIN = np.random.default_rng(0).bytes(150_000)
FILE = bytes(seal(PLAIN, [ALICE.public, Identity.generate().public]))
HEADER = read_header(FILE).size_bytes


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is not even asked."""
    monkeypatch.setattr(age.pyrage, "decrypt_io", lambda *given: pytest.fail("the library was given the file"))


def stanza(kind: bytes, *arguments: bytes, body: bytes = bytes(32)) -> bytes:
    encoded = base64.b64encode(body).rstrip(b"=")
    lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
    if not lines or len(lines[-1]) == 64:
        lines.append(b"")
    return b" ".join([b"->", kind, *arguments]) + b"\n" + b"\n".join(lines) + b"\n"


def with_header(*stanzas: bytes) -> bytes:
    mac = base64.b64encode(bytes(32)).rstrip(b"=")
    return b"age-encryption.org/v1\n" + b"".join(stanzas) + b"--- " + mac + b"\n" + FILE[HEADER:]


def share(number: int) -> bytes:
    return base64.b64encode(number.to_bytes(32, "little")).rstrip(b"=")


CUTS = (0, 1, 21, 22, 40, HEADER - 1, HEADER, HEADER + 16, HEADER + 31, HEADER + 32, HEADER + 65_568, HEADER + 65_569)


# Headers have a length of their own each time, so the cases go by number.
@pytest.mark.parametrize("length", [*CUTS, len(FILE) - 1, len(FILE) - 16, len(FILE) - 40_000], ids=range(15))
def test_a_file_cut_anywhere_is_malformed(length: int) -> None:
    with pytest.raises(MalformedWeights):
        unseal(FILE[:length], [ALICE], len(PLAIN))


def test_a_file_cut_at_the_end_of_a_chunk_is_malformed() -> None:
    for chunks in (1, 2):
        with pytest.raises(MalformedWeights, match="cut or altered"):
            unseal(FILE[: HEADER + 16 + chunks * 65_552], [ALICE], len(PLAIN))


@given(at=st.integers(0, len(FILE) - 1), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_one_bit_altered_never_gives_other_bytes(at: int, bit: int) -> None:
    altered = bytearray(FILE)
    altered[at] ^= 1 << bit
    with pytest.raises((MalformedWeights, Unreadable)):
        unseal(altered, [ALICE], len(PLAIN))


def test_more_behind_the_end_is_malformed() -> None:
    for more in (b"x", bytes(65_552), FILE):
        with pytest.raises(MalformedWeights):
            unseal(FILE + more, [ALICE], 1 << 20)


@pytest.mark.usefixtures("untouched")
def test_ten_thousand_recipients_are_refused_unopened() -> None:
    one = stanza(b"X25519", share(9))
    for count in (259, 10_000):
        with pytest.raises(MalformedWeights, match=r"more than 257 recipients|more than 32768 bytes"):
            unseal(with_header(*[one] * count), [ALICE], len(PLAIN))
    assert read_header(with_header(*[one] * 258)).stanzas == 258


@pytest.mark.usefixtures("untouched")
def test_a_header_without_end_is_refused_unopened() -> None:
    endless = b"age-encryption.org/v1\n-> X25519 " + share(9) + b"\n" + (b"A" * 64 + b"\n") * 100_000
    with pytest.raises(MalformedWeights, match=f"more than {MOST_HEADER_BYTES} bytes"):
        unseal(endless, [ALICE], len(PLAIN))
    with pytest.raises(MalformedWeights, match="more than"):
        unseal(with_header(stanza(b"X25519", share(9), body=bytes(40_000))), [ALICE], len(PLAIN))
    with pytest.raises(MalformedWeights, match="more than"):
        unseal(b"age-encryption.org/v1\n-> " + b"a" * 100_000, [ALICE], len(PLAIN))


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        b"age-encryption.org/v2\n",
        b"-----BEGIN AGE ENCRYPTED FILE-----\n",
        b"age-encryption.org/v1\n--- " + b"A" * 43 + b"\n" + bytes(64),
        b"age-encryption.org/v1\n->\nAAAA\n--- " + b"A" * 43 + b"\n" + bytes(64),
        b"age-encryption.org/v1\n-> X25519  a\nAAAA\n--- " + b"A" * 43 + b"\n" + bytes(64),
        b"age-encryption.org/v1\n-> X\nAA=A\n--- " + b"A" * 43 + b"\n" + bytes(64),
        b"age-encryption.org/v1\n-> X\n" + b"A" * 65 + b"\n--- " + b"A" * 43 + b"\n" + bytes(64),
        b"age-encryption.org/v1\n-> X\nAAAA\n--- " + b"A" * 42 + b"\n" + bytes(64),
        b"age-encryption.org/v1\n-> \xff\xfe\nAAAA\n--- " + b"A" * 43 + b"\n" + bytes(64),
    ],
)  # fmt: skip
def test_what_is_no_age_file_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedWeights):
        unseal(data, [ALICE], 1000)


@pytest.mark.parametrize("number", [0, 1, 2**255 - 19, 2**255 - 20, 2**256 - 1])
def test_a_share_of_small_order_is_malformed_and_no_panic(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((MalformedWeights, Unreadable)):
        unseal(with_header(stanza(b"X25519", share(number))), [ALICE], len(PLAIN))
    assert "panicked" not in capfd.readouterr().err


def test_stanzas_of_other_kinds_are_passed_over() -> None:
    strange = stanza(b"piv-p256", b"abcd", share(5), body=bytes(100)) + stanza(b"x-grease", body=b"")
    with pytest.raises(Unreadable):
        unseal(with_header(strange, stanza(b"X25519", share(9))), [ALICE], len(PLAIN))
    with pytest.raises(Unreadable, match="type piv-p256, x-grease, expected X25519"):
        unseal(with_header(strange), [ALICE], len(PLAIN))


def test_a_file_behind_a_passphrase_is_unreadable_at_once() -> None:
    with pytest.raises(Unreadable, match="type scrypt"):
        unseal(passphrase.encrypt(b"secret", "word"), [ALICE], 1000)
    costly = with_header(
        stanza(b"scrypt", base64.b64encode(bytes(16)).rstrip(b"="), b"30"), stanza(b"X25519", share(9))
    )
    with pytest.raises((Unreadable, MalformedWeights)):
        unseal(costly, [ALICE], len(PLAIN))


def test_a_panic_of_the_library_is_an_error_and_an_interrupt_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def raising(error: BaseException) -> None:
        def decrypt_io(*given: object) -> None:
            raise error

        monkeypatch.setattr(age.pyrage, "decrypt_io", decrypt_io)

    raising(PanicException("all-zero"))
    with pytest.raises(MalformedWeights, match="gave up decrypting: all-zero"):
        unseal(FILE, [ALICE], len(PLAIN))
    raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        unseal(FILE, [ALICE], len(PLAIN))


@given(data=st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_any_bytes_behind_the_first_line_raise_ours(data: bytes) -> None:
    with pytest.raises(FlNodeError):
        unseal(b"age-encryption.org/v1\n" + data, [ALICE], 1 << 20)
