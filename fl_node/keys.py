"""A peer's key: an eth-account keystore (Web3 Secret Storage, version 3), its password, and what signs with it.

Who has the file and the password is the peer. Back both up, apart from each other; a lost key cannot be recovered, but
the owner can admit the site again with another one.
"""

from __future__ import annotations

import getpass
import hmac
import json
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fl_node.causes import in_words
from fl_node.errors import KeystoreError
from fl_node.recursion import limit_kept

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

ENV_PASSWORD: Final = "FL_NODE_PASSWORD"  # noqa: S105 - the variable's name
ENV_PASSWORD_FILE: Final = "FL_NODE_PASSWORD_FILE"  # noqa: S105
DEV_CHAINS: Final = frozenset({1337, 31337})

# Addresses of the accounts that Anvil, Hardhat and Ganache (with the same mnemonic) start with. Their keys are public.
PUBLIC_ACCOUNTS: Final = frozenset(
    {
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
        "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
        "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
        "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
        "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
        "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
        "0xBcd4042DE499D14e55001CcbB24a551F3b954096",
        "0x71bE63f3384f5fb98995898A86B02Fb2426c5788",
        "0xFABB0ac9d68B0B445fB7357272Ff202C5651694a",
        "0x1CBd3b2770909D4e10f157cABC84C7264073C9Ec",
        "0xdF3e18d64BC6A983f673Ab319CCaE4f1a57C7097",
        "0xcd3B766CCDd6AE721141F452C550Ca635964ce71",
        "0x2546BcD3c84621e976D8185a91A922aE77ECEc30",
        "0xbDA5747bFD65F08deb54cb465eB87D40e51B197E",
        "0xdD2FD4581271e230360230F9337D5c0430Bf44C0",
        "0x8626f6940E2eb28930eFb4CeF49B2d1F2C9C1199",
    }
)


class Signer:
    """A key in memory: its address, and transactions signed with it.

    Never shown: ``repr`` has the address only.
    """

    def __init__(self, account: LocalAccount) -> None:
        self._account = account
        self.address: str = str(account.address)

    def sign(self, transaction: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Sign a transaction (web3's keys, all fields given). Returns the raw transaction and its 32-byte hash.

        Raises:
            KeystoreError: a public development key on a chain that is none.
        """
        self.check_chain(int(transaction["chainId"]))
        signed = self._account.sign_transaction(dict(transaction))
        return bytes(signed.raw_transaction), bytes(signed.hash)

    def sign_text(self, text: bytes) -> bytes:
        """An EIP-191 personal message signed with the key: 65 bytes, r, s and v (27 or 28)."""
        from eth_account.messages import encode_defunct

        return bytes(self._account.sign_message(encode_defunct(text)).signature)

    def derive(self, info: bytes) -> bytes:
        """32 secret bytes that follow from the key and ``info``, and from which neither follows: HKDF-SHA256 (RFC 5869)
        of the private key, without salt."""
        extracted = hmac.digest(bytes(32), bytes(self._account.key), "sha256")
        return hmac.digest(extracted, info + b"\x01", "sha256")

    def check_chain(self, chain_id: int) -> None:
        """Refuse the keys that everybody knows where they could lose something.

        Raises:
            KeystoreError: a public development key, and a chain id other than 1337 and 31337.
        """
        if self.address in PUBLIC_ACCOUNTS and chain_id not in DEV_CHAINS:
            raise KeystoreError(
                f"got the public development key {self.address} on chain {chain_id}; everybody can sign with it: "
                "expected a key of your own; make one with `fl-node init`"
            )

    def __repr__(self) -> str:
        return f"Signer({self.address})"


def create(path: Path, password: str, light: bool = False) -> Signer:
    """Make a new key and keep it at ``path``, encrypted, readable by its owner only. Never overwrites.

    ``light`` derives the encryption key in milliseconds instead of a second: for throw-away demo keys only.

    Raises:
        KeystoreError: the file exists, or cannot be written.
    """
    return store(path, secrets.token_bytes(32), password, light)


def store(path: Path, private_key: bytes | str, password: str, light: bool = False) -> Signer:
    """Keep a given private key at ``path``; otherwise as :func:`create`."""
    with limit_kept():
        from eth_account import Account

    if path.exists():
        raise KeystoreError(
            f"{path} exists already; expected a new file: a key is never overwritten; move it away first"
        )
    account = from_private_key(private_key)._account
    if light:
        keystore = Account.encrypt(account.key, password, kdf="pbkdf2", iterations=1_000)
    else:
        keystore = Account.encrypt(account.key, password, kdf="scrypt")
    _write_new(path, json.dumps(keystore, indent=1).encode() + b"\n")
    return Signer(account)


def load(path: Path, password: str) -> Signer:
    """Read a keystore.

    Raises:
        KeystoreError: no such file, not a keystore, or another password.
    """
    with limit_kept():
        from eth_account import Account

    try:
        keystore = json.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise KeystoreError(f"cannot read the key {path}: {cause.strerror}; make one with `fl-node init`") from cause
    except ValueError as cause:
        raise KeystoreError(f"{path} is not a keystore: {in_words(cause)}; restore it from your backup") from cause
    try:
        return Signer(Account.from_key(Account.decrypt(keystore, password)))
    except ValueError as cause:
        raise KeystoreError(f"the password does not open {path}: {cause}; try again, or name the right file") from cause
    except (KeyError, TypeError, NotImplementedError) as cause:
        raise KeystoreError(
            f"{path} is not a version 3 keystore: {in_words(cause)}; restore it from your backup"
        ) from cause


def unlock(path: Path, password_file: Path | None = None) -> Signer:
    """Read a keystore, with the password from wherever :func:`read_password` finds it.

    Raises:
        KeystoreError: as both; a missing file is told before anybody is asked for a password.
    """
    if not path.is_file():
        raise KeystoreError(f"no key at {path}; make one with `fl-node init`, or name another with --key")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        print(
            f"fl-node: warning: {path} has mode {mode:03o}, so that others may read it, and try passwords on it, or "
            f"replace it; expected 600: chmod 600 {path}",
            file=sys.stderr,
        )
    return load(path, read_password(password_file, prompt=f"Password of {path}: "))


def from_private_key(private_key: bytes | str) -> Signer:
    """A signer from a bare private key: for development chains and tests.

    Raises:
        KeystoreError: not 32 bytes of hexadecimal digits, or not a key of the curve.
    """
    with limit_kept():
        from eth_account import Account

    try:
        return Signer(Account.from_key(private_key))
    except Exception as cause:
        raise KeystoreError("got no private key; expected 32 bytes, as hexadecimal digits") from cause


def read_password(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    confirm: bool = False,
    prompt: str = "Password of the key: ",
) -> str:
    """The keystore's password: from a file, else ``FL_NODE_PASSWORD``, else ``FL_NODE_PASSWORD_FILE``, else a prompt.

    A file's last line break does not count. ``confirm`` asks twice, for a new key.

    Raises:
        KeystoreError: an unreadable file, nobody to ask, or two different answers.
    """
    env = os.environ if environment is None else environment
    if file is None and ENV_PASSWORD in env:
        return env[ENV_PASSWORD]
    if file is None and env.get(ENV_PASSWORD_FILE):
        file = Path(env[ENV_PASSWORD_FILE])
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as cause:
            raise KeystoreError(f"cannot read the password file {file}: {in_words(cause)}") from cause
    if not sys.stdin.isatty():
        raise KeystoreError(
            f"the key needs a password and there is no terminal to ask; set {ENV_PASSWORD_FILE} or {ENV_PASSWORD}"
        )
    password = getpass.getpass(prompt)
    if confirm and getpass.getpass("The same again: ") != password:
        raise KeystoreError("got two different passwords; expected the same twice; nothing was written")
    return password


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist, whole or not at all, with mode 0600."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(content)
                sink.flush()
                os.fsync(sink.fileno())
            os.link(scratch, path)  # fails if somebody else made it meanwhile, which a rename would not
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as cause:
        raise KeystoreError(f"cannot write the key {path}: {cause.strerror}; nothing was written") from cause
