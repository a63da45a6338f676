"""Who solved: a 20-byte Ethereum address, and a secp256k1 signature of the run commitment by its key.

Binding a run to an address does not need the key; signing does (`pip install gensyn_verify[sign]`). An unsigned run is
verified like any other, and the report says that nobody signed it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from gensyn_verify.errors import BundleError, MalformedError
from gensyn_verify.program.keccak import keccak256

SIGNATURE_BYTES = 65
_DOMAIN = b"gensyn_verify.signature.1"
_GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@dataclass(frozen=True)
class Identity:
    """An address, and the private key behind it if runs are to be signed."""

    address: bytes
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.address) != 20:
            raise MalformedError(f"an address has 20 bytes, found {len(self.address)}")

    @staticmethod
    def from_key(key: bytes) -> Identity:
        """The identity of a 32-byte secp256k1 private key."""
        return Identity(_address(_keys().PrivateKey(_checked_key(key)).public_key.to_bytes()), key)

    @staticmethod
    def generate() -> Identity:
        """A new random key. Keep `key`: nobody else can sign for the address."""
        return Identity.from_key(secrets.token_bytes(32))

    @staticmethod
    def unsigned(address: str | bytes | None = None) -> Identity:
        """An address without its key: hex with or without 0x, 20 bytes, or a random one."""
        if isinstance(address, str):
            try:
                address = bytes.fromhex(address.removeprefix("0x"))
            except ValueError:
                raise MalformedError(f"address {address!r} is not hex") from None
        return Identity(secrets.token_bytes(20) if address is None else address)

    def sign(self, commitment: bytes) -> bytes:
        """r | s | recovery id, 65 bytes, over keccak-256 of domain and commitment; b"" without a key."""
        if self.key is None:
            return b""
        return bytes(_keys().PrivateKey(self.key).sign_msg_hash(_message(commitment)).to_bytes())


def signer(commitment: bytes, signature: bytes) -> bytes | None:
    """The address that signed; None where the bytes are no signature at all."""
    from eth_keys.exceptions import BadSignature
    from eth_utils.exceptions import ValidationError

    try:
        public = _keys().Signature(signature).recover_public_key_from_msg_hash(_message(commitment))
    except (BadSignature, ValidationError, ValueError):
        return None
    return _address(public.to_bytes())


def can_sign() -> bool:
    """Whether eth-keys is installed."""
    try:
        _keys()
    except BundleError:
        return False
    return True


def _message(commitment: bytes) -> bytes:
    return keccak256(_DOMAIN + commitment)


def _address(public_key: bytes) -> bytes:
    return keccak256(public_key)[-20:]


def _checked_key(key: bytes) -> bytes:
    if len(key) != 32 or not 0 < int.from_bytes(key, "big") < _GROUP_ORDER:
        raise MalformedError("a private key is 32 bytes, a number above 0 and below the order of secp256k1")
    return key


def _keys() -> Any:
    try:
        from eth_keys.main import KeyAPI
    except ImportError:
        raise BundleError("signatures need eth-keys: pip install 'gensyn_verify[sign]'") from None
    return KeyAPI()
