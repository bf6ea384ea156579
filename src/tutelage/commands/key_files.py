"""The two keys of a release, kept in files that only their owner may read.

The signer vouches for packages; its public half lies beside it under the same name with `.pub`, for everybody who is to
believe them. The seal key opens the strangers inside a package; devices of the fleet need it. A key file that does not
exist is made, and one that does is never overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tutelage.errors import Code, StorageError
from tutelage.files import create_file
from tutelage.sealing import make_key, read_key
from tutelage.signing import make_signer, public_pem, public_raw, read_public_key, read_signer

__all__ = ["ReleaseKeys", "public_file", "release_keys"]


@dataclass(frozen=True)
class ReleaseKeys:
    """The keys, where they lie, and which of them are new."""

    signer: Ed25519PrivateKey = field(repr=False)
    seal_key: bytes = field(repr=False)
    signer_file: Path
    public_file: Path
    """Of the signer's public half."""
    seal_file: Path
    made: tuple[Path, ...]
    """Files that did not exist before."""


def public_file(signer_file: Path) -> Path:
    """Where the public half of a signer lies."""
    return signer_file.parent / f"{signer_file.stem}.pub"


def release_keys(signer_file: Path, seal_file: Path) -> ReleaseKeys:
    """Read both keys, or make those that do not exist.

    Raises:
        StorageError: `key-wrong`, a file holds another kind of key, or a public half that is not the signer's;
            `storage-failed` or `storage-full`.
    """
    public = public_file(signer_file)
    made = tuple(path for path in (signer_file, public, seal_file) if not path.exists())
    signer = make_signer(signer_file) if signer_file in made else read_signer(signer_file)
    _keep_public(signer, public)
    seal_key = make_key(seal_file) if seal_file in made else read_key(seal_file)
    return ReleaseKeys(signer, seal_key, signer_file, public, seal_file, made)


def _keep_public(signer: Ed25519PrivateKey, path: Path) -> None:
    public = signer.public_key()
    if not path.exists():
        create_file(path, public_pem(public))
    elif public_raw(read_public_key(path)) != public_raw(public):
        raise StorageError(Code.KEY_WRONG, f"{path} is not the public half of this signer: name another signer file")
