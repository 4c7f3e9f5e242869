"""Bytes into age files and back, key texts, sizes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrage import x25519

from fl_node.errors import MalformedWeights, Unreadable, UsageError
from fl_node.sealing import age
from fl_node.sealing.age import Identity, parse_recipient, read_header, recipient_text, seal, unseal

ALICE, BOB, CAROL = Identity.generate(), Identity.generate(), Identity.generate()
CHUNK = 65_536
SIZES = (0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK)


@pytest.mark.parametrize("size", SIZES)
def test_every_recipient_and_nobody_else_opens_a_file(size: int) -> None:
    plain = np.random.default_rng(size).bytes(size)
    data = seal(plain, [ALICE.public, BOB.public])
    for identity in (ALICE, BOB):
        assert unseal(data, [CAROL, identity], size) == plain
    with pytest.raises(Unreadable, match=r"none of 1 keys opens the age file, which is encrypted to \d keys?: it"):
        unseal(data, [CAROL], size)
    with pytest.raises(Unreadable, match="no key here"):
        unseal(data, [], size)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_known_without_a_key(size: int) -> None:
    for recipients in (1, 3, 257):
        publics = [Identity.generate().public for _ in range(recipients)]
        data = seal(bytes(size), publics)
        header = read_header(data)
        assert age.plain_size(header, len(data)) == size
        assert header.kinds.count("X25519") == recipients and header.stanzas == len(header.kinds)
        assert len(data) <= age.sealed_size(size, recipients)
        assert bytes(data[header.size_bytes - 48 : header.size_bytes]).startswith(b"--- ")


def test_an_upper_bound_holds_for_every_filling_that_the_library_adds() -> None:
    assert max(len(seal(b"x", [ALICE.public])) for _ in range(500)) <= age.sealed_size(1, 1)


@given(cuts=st.lists(st.integers(0, 3 * CHUNK), max_size=6), size=st.integers(0, 3 * CHUNK))
@settings(max_examples=40, deadline=None)
def test_buffers_are_one_file_however_they_are_cut(cuts: list[int], size: int) -> None:
    plain = np.random.default_rng(7).bytes(size)
    ends = sorted(min(cut, size) for cut in cuts)
    pieces = [plain[start:stop] for start, stop in zip([0, *ends], [*ends, size], strict=True)]
    assert unseal(seal(pieces, [ALICE.public]), [ALICE], size) == plain


def test_buffers_of_any_kind_are_read_in_place() -> None:
    array = np.arange(50_000, dtype="<f4").reshape(100, 500)
    data = seal([b"head", array.data, bytearray(b""), memoryview(b"tail")], [ALICE.public])
    assert unseal(data, [ALICE], 1 << 20) == b"head" + array.tobytes() + b"tail"


def test_two_files_of_the_same_bytes_have_nothing_in_common() -> None:
    one, other = (bytes(seal(bytes(1000), [ALICE.public])) for _ in range(2))
    assert one[-1000:] != other[-1000:]
    assert one.split(b"\n")[1] != other.split(b"\n")[1]


def test_a_recipient_that_is_there_twice_counts_once() -> None:
    assert read_header(seal(b"x", [ALICE.public, BOB.public, ALICE.public])).kinds.count("X25519") == 2


SMALL_ORDER = (
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    b"\xff" * 32,
    b"short",
)


@pytest.mark.parametrize("public", SMALL_ORDER, ids=lambda public: public.hex()[:8])
def test_keys_that_everybody_could_open_are_refused(public: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="usable X25519"):
        seal(b"secret", [ALICE.public, public])
    assert capfd.readouterr().err == ""  # no panic of the library was told


def test_nobody_and_too_many_are_refused() -> None:
    with pytest.raises(UsageError, match="got 0 recipients"):
        seal(b"x", [])
    with pytest.raises(UsageError, match="got 258 recipients, expected 1 to 257"):
        seal(b"x", [Identity.generate().public for _ in range(258)])


def test_more_plaintext_than_asked_for_is_refused_before_anything_is_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = seal(bytes(1001), [ALICE.public])
    monkeypatch.setattr(age.pyrage, "decrypt_io", lambda *given: pytest.fail("decrypted"))
    with pytest.raises(MalformedWeights, match="holds 1001 bytes, expected at most 1000"):
        unseal(data, [ALICE], 1000)


# ---- keys ----


def test_a_key_as_text_is_what_the_library_reads() -> None:
    assert str(x25519.Identity.from_str(ALICE.text()).to_public()) == recipient_text(ALICE.public)
    assert ALICE.text().startswith("AGE-SECRET-KEY-1") and len(recipient_text(ALICE.public)) == 62
    assert Identity.parse(f" {ALICE.text()}\n") == ALICE and Identity.parse(ALICE.text().lower()) == ALICE
    assert parse_recipient(recipient_text(ALICE.public)) == ALICE.public
    assert ALICE != BOB and len({ALICE, Identity.parse(ALICE.text())}) == 1


def test_a_key_from_its_secret_is_the_one_that_openssl_finds() -> None:
    for seed in range(4):
        secret = np.random.default_rng(seed).bytes(32)
        theirs = X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
        assert Identity.of(secret).public == theirs


@pytest.mark.parametrize("wrong", ["", "AGE-SECRET-KEY-1", "age1xyz", "AGE-SECRET-KEY-1" + "Q" * 58, "x" * 10_000, "é"])
def test_what_is_no_private_key_is_refused_and_not_told(wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        Identity.parse(wrong)
    assert not wrong or wrong not in str(caught.value).replace("AGE-SECRET-KEY-1...", "")
    altered = ALICE.text()[:-1] + ("Q" if ALICE.text()[-1] != "Q" else "P")
    with pytest.raises(UsageError) as caught:
        Identity.parse(altered)
    assert altered[20:40] not in str(caught.value) and caught.value.__cause__ is None


@pytest.mark.parametrize("wrong", ["", "age1", "age1" + "q" * 58, "AGE-SECRET-KEY-1", "x" * 10_000])
def test_what_is_no_public_key_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="expected the text of an X25519 key"):
        parse_recipient(wrong)


def test_a_private_key_is_neither_shown_nor_pickled() -> None:
    secret = ALICE.text()
    for shown in (repr(ALICE), str(ALICE), f"{ALICE}", repr([ALICE]), repr({"key": ALICE})):
        assert secret[16:] not in shown and recipient_text(ALICE.public) in shown
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(ALICE)
    with pytest.raises(UsageError) as caught:
        Identity.of(b"\x11" * 31)
    assert "11" not in str(caught.value).replace("31", "")
