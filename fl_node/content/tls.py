"""TLS of gateways: certificates that members make themselves and pin by announcement, or files that they are given.

A pin is the SHA-256 of the certificate's SubjectPublicKeyInfo (DER), as in RFC 7469: it names the key, so a
certificate can be renewed and its pin stays. With a pin the pin alone decides; without one, the authorities that this
system trusts.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fl_node.errors import StoreFull, UsageError

if TYPE_CHECKING:
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

NO_PIN: Final = bytes(32)
FOLDER_NAME: Final = "tls"
_CERTIFICATE, _KEY = "certificate.pem", "key.pem"
_VALID_DAYS: Final = 398
_RENEW_DAYS: Final = 30
#: Between two looks at whether a certificate was replaced or is to be renewed.
_LOOK_S: Final = 60.0
#: Of TLS 1.2: forward secret and authenticated. All of TLS 1.3 are.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_OTHERS: Final = 0o077


def spki_pin(certificate: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo of a certificate (DER), 32 bytes.

    Raises:
        ValueError: it cannot be read, or its key is of an unknown kind.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return _pin(x509.load_der_x509_certificate(certificate))
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        raise ValueError(f"it cannot be read: {cause}") from cause


def client_context(pinned: bool) -> ssl.SSLContext:
    """What a client of gateways speaks. ``pinned``: who connects compares :func:`spki_pin` before it sends anything."""
    # The authorities' files are read once: that takes as long as many handshakes.
    return _client_context(pinned, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


class ServerTls:
    """A certificate and its key, in force. Safe to share between threads.

    Args:
        certificate: file with the certificate, then those that it hangs on (PEM).
        key: file with its private key (PEM), that nobody else may read.
        pinned: announce the pin also of a certificate that somebody else signed.
        prepare: makes the files, or makes them anew if it is time; asked at the start and then now and then.
        tell: told if a certificate cannot be replaced; the one before stays in force.

    Raises:
        UsageError: the files are not there, do not fit, or others may read the key.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        pinned: bool = False,
        prepare: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._certificate, self._key = certificate, key
        self._prepare, self._tell, self._pinned = prepare, tell, pinned
        self._lock = threading.Lock()
        prepare()
        self._stamp = self._stamped()
        self._context, self._pin = self._load()
        self._looked_at = time.monotonic()

    @property
    def pin(self) -> bytes:
        """What to announce: the pin of the key, or zeros where authorities vouch for the certificate."""
        return self._pin

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """An accepted connection over TLS, its handshake not begun."""
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self.renew()
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def renew(self) -> None:
        """Put a certificate into force that was replaced on disk, or whose time is nearly over."""
        with self._lock:
            self._looked_at = time.monotonic()
            try:
                self._prepare()
                stamp = self._stamped()
                if stamp != self._stamp:
                    self._context, self._pin = self._load()
                    self._stamp = stamp
            except (UsageError, StoreFull) as cause:
                self._tell(f"goes on with the certificate that it has: {cause}")

    def _stamped(self) -> tuple[tuple[int, int], ...]:
        try:
            found = [path.stat() for path in (self._certificate, self._key)]
        except OSError as cause:
            raise UsageError(f"cannot read {cause.filename}: {cause.strerror}; expected a PEM file") from cause
        if found[1].st_mode & _OTHERS:
            raise UsageError(
                f"others may read the key {self._key} (mode {found[1].st_mode & 0o777:04o}), expected 0600: "
                f"chmod 600 {self._key}, and make a new key if it may have been read"
            )
        return tuple((one.st_mtime_ns, one.st_ino) for one in found)

    def _load(self) -> tuple[ssl.SSLContext, bytes]:
        import ssl

        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            # The password is asked for on a terminal otherwise.
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
            certificate = x509.load_pem_x509_certificate(self._certificate.read_bytes())
            own = certificate.issuer == certificate.subject
            return context, _pin(certificate) if own or self._pinned else NO_PIN
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as cause:
            raise UsageError(
                f"cannot speak TLS with {self._certificate} and {self._key}: {cause}; expected the certificate chain "
                "and its unencrypted private key, both PEM"
            ) from cause


def generated(folder: Path, hosts: Sequence[str], tell: Callable[[str], None] = lambda text: None) -> ServerTls:
    """A certificate that this peer signs itself, for announcing its pin. Made at the first start in ``folder``, and
    renewed in time with the same key.

    Args:
        hosts: names and addresses to name in it, for those who look at them.

    Raises:
        UsageError: what is there cannot be used.
        StoreFull: the folder cannot be written.
    """
    names = sorted({"localhost", "127.0.0.1", *hosts} - {""})

    def prepare() -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _ensure(folder, names)
        except OSError as cause:
            raise StoreFull(f"cannot write {folder}: {cause.strerror}; expected a writable disk with room") from cause

    return ServerTls(folder / _CERTIFICATE, folder / _KEY, prepare=prepare, tell=tell)


def _ensure(folder: Path, names: Sequence[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    certificate, key = folder / _CERTIFICATE, folder / _KEY
    if not key.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        text = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(key, text)
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is of another kind")
        if certificate.exists() and _good(x509.load_pem_x509_certificate(certificate.read_bytes()), private, names):
            return
    except (ValueError, TypeError) as cause:
        raise UsageError(
            f"cannot use what lies in {folder}: {cause}; delete the folder to make a new key, whose pin is announced "
            "at the next start"
        ) from cause
    _write(certificate, _signed(private, names))


def _good(certificate: x509.Certificate, key: EllipticCurvePrivateKey, names: Sequence[str]) -> bool:
    """Whether a certificate is for this key and these names, and lasts for a while."""
    from cryptography import x509

    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return (
        left > datetime.timedelta(days=_RENEW_DAYS)
        and certificate.public_key() == key.public_key()
        and said == _alternatives(names)
    )


def _signed(key: EllipticCurvePrivateKey, names: Sequence[str]) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fl-node gateway")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS - 1))
        .add_extension(_alternatives(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    from cryptography import x509

    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name if name.isascii() else name.encode("idna").decode()))
    return x509.SubjectAlternativeName(found)


def _pin(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(key).digest()


def _write(path: Path, data: bytes) -> None:
    """By atomic rename, and readable by nobody else at any instant."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _no_password() -> str:
    raise ValueError("the key is encrypted")


@functools.lru_cache(maxsize=8)
def _client_context(pinned: bool, file: str | None, folder: str | None) -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pinned:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
