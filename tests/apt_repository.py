"""A signed apt repository, made without any tool that a bare machine lacks: no gpg, no apt-utils, no dpkg-dev.

The signature is OpenPGP as RFC 9580 has it for version 4: one RSA key with one user ID, and a cleartext signature.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

# A day in 2024: a key is not valid before it was made.
CREATED = (1735000000).to_bytes(4, "big")
RSA, SHA256 = 1, 8
USER_ID = b"Rabbitproof's tests <tests@example.invalid>"


@dataclass(frozen=True)
class SigningKey:
    """A key that was generated for one test."""

    private: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    @cached_property
    def body(self) -> bytes:
        """The body of the public key packet."""
        numbers = self.private.public_key().public_numbers()
        return b"\x04" + CREATED + bytes([RSA]) + integer(numbers.n) + integer(numbers.e)

    @cached_property
    def public(self) -> str:
        """The public key as ASCII-armoured text, signed by itself."""
        identity = b"\xb4" + len(USER_ID).to_bytes(4, "big") + USER_ID
        certified = self._signature(0x13, self._hashed_key() + identity, more=subpacket(27, b"\x03"))
        return armour("PUBLIC KEY BLOCK", packet(6, self.body) + packet(13, USER_ID) + packet(2, certified))

    def sign(self, text: str) -> str:
        """Return a text with its signature around it, as InRelease is."""
        lines = text.rstrip("\n").split("\n")
        signature = self._signature(0x01, "\r\n".join(line.rstrip() for line in lines).encode())
        head = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
        return head + "\n".join(lines) + "\n" + armour("SIGNATURE", packet(2, signature))

    def _hashed_key(self) -> bytes:
        return b"\x99" + len(self.body).to_bytes(2, "big") + self.body

    def _signature(self, kind: int, signed: bytes, more: bytes = b"") -> bytes:
        fingerprint = hashlib.sha1(self._hashed_key()).digest()  # noqa: S324 (that is what the format says)
        inner = subpacket(2, CREATED) + subpacket(33, b"\x04" + fingerprint) + more
        head = bytes([4, kind, RSA, SHA256]) + len(inner).to_bytes(2, "big") + inner
        data = signed + head + b"\x04\xff" + len(head).to_bytes(4, "big")
        outer = subpacket(16, fingerprint[-8:])
        made = self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return (
            head
            + len(outer).to_bytes(2, "big")
            + outer
            + hashlib.sha256(data).digest()[:2]
            + integer(int.from_bytes(made, "big"))
        )


def integer(number: int) -> bytes:
    """Return a number with its length in bits before it."""
    bits = number.bit_length()
    return bits.to_bytes(2, "big") + number.to_bytes((bits + 7) // 8, "big")


def packet(tag: int, body: bytes) -> bytes:
    """Return a packet with a length of four bytes."""
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def subpacket(kind: int, body: bytes) -> bytes:
    """Return a subpacket of a signature."""
    return bytes([len(body) + 1, kind]) + body


def armour(title: str, data: bytes) -> str:
    """Return bytes as ASCII-armoured text."""
    encoded = base64.b64encode(data).decode()
    lines = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    return (
        f"-----BEGIN PGP {title}-----\n\n"
        + "\n".join([*lines, f"={checksum(data)}"])
        + f"\n-----END PGP {title}-----\n"
    )


def checksum(data: bytes) -> str:
    """Return the CRC-24 of an armour."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return base64.b64encode(crc.to_bytes(3, "big")).decode()


def package(name: str, version: str, *, architecture: str, depends: str = "") -> str:
    """Return the paragraph of a package in a list. There is no file of it, which only an installation would miss."""
    lines = [
        f"Package: {name}",
        f"Version: {version}",
        f"Architecture: {architecture}",
        "Maintainer: nobody <nobody@example.invalid>",
        *([f"Depends: {depends}"] if depends else []),
        f"Filename: ./{name}.deb",
        "Size: 1",
        f"SHA256: {'0' * 64}",
        "Description: nothing",
    ]
    return "\n".join(lines) + "\n"


def publish(directory: Path, packages: str, *, key: SigningKey | None, suite: str, more: str = "") -> None:
    """Write a repository at a path that ends with a slash; without a key it is not signed."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Packages").write_text(packages)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    release = (
        f"Origin: Tests\nSuite: {suite}\nCodename: {suite}\nDate: Tue, 01 Jan 2026 00:00:00 UTC\n{more}"
        f"SHA256:\n {digest} {len(packages.encode())} Packages\n"
    )
    if key:
        (directory / "InRelease").write_text(key.sign(release))
    else:
        (directory / "Release").write_text(release)
