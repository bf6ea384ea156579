"""A zip archive with exactly one byte form: equal members give equal bytes, and nothing can hide between them.

Members are stored, not compressed (no bombs; weights do not compress anyway), in the order given, dated 1980-01-01,
without comments or extra fields (PKWARE APPNOTE 6.3.10 §4.3 to §4.4). Any zip tool can open the result. Reading is
strict: whatever does not come out the same when packed again is refused, so each byte of a file counts.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping

from tutelage.errors import Code, PackageError

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_VERSION = 20
_MADE_BY_UNIX = (3 << 8) | _VERSION
_NO_FLAGS, _STORED, _MIDNIGHT, _FIRST_OF_1980 = 0, 0, 0, 0x21
_REGULAR_FILE_0644 = 0o100644 << 16
_MAX_MEMBERS = 16  # bounds the work on a file made of millions of empty members
_NAME = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*")  # no folders, no case, nothing a file system could trip over


def pack(members: Mapping[str, bytes]) -> bytes:
    """The archive of `members` in their order; names are lower-case words joined by dots."""
    local, central, offset = [], [], 0
    for name, content in members.items():
        described = (_VERSION, _NO_FLAGS, _STORED, _MIDNIGHT, _FIRST_OF_1980, zlib.crc32(content))
        sizes = (len(content), len(content), len(name), 0)
        head = _LOCAL.pack(_LOCAL_SIGNATURE, *described, *sizes) + name.encode()
        rest = (0, 0, 0, _REGULAR_FILE_0644, offset)
        central.append(_CENTRAL.pack(_CENTRAL_SIGNATURE, _MADE_BY_UNIX, *described, *sizes, *rest) + name.encode())
        local += [head, content]
        offset += len(head) + len(content)
    directory = b"".join(central)
    end = _END.pack(_END_SIGNATURE, 0, 0, len(members), len(members), len(directory), offset, 0)
    return b"".join([*local, directory, end])


def unpack(data: bytes) -> dict[str, bytes]:
    """The members of an archive that `pack` could have made, in their order.

    Raises:
        PackageError: `package-corrupt`, anything else, with the first fault found.
    """
    if not data.startswith(_LOCAL_SIGNATURE):
        raise _corrupt("it does not begin like a zip archive")
    members: dict[str, bytes] = {}
    offset = 0
    while data.startswith(_LOCAL_SIGNATURE, offset):
        name, content, offset = _member(data, offset)
        if name in members or len(members) == _MAX_MEMBERS:
            raise _corrupt(f"it holds {name} twice, or too many members")
        members[name] = content
    if pack(members) != data:
        raise _corrupt("its directory does not fit its members")
    return members


def _member(data: bytes, offset: int) -> tuple[str, bytes, int]:
    """Name and content of the member at `offset`, and where it ends."""
    if len(data) < offset + _LOCAL.size:
        raise _corrupt("it ends in the middle of a header")
    _, _, _, method, _, _, crc, size, _, name_length, extra_length = _LOCAL.unpack_from(data, offset)
    start = offset + _LOCAL.size + name_length
    name = data[offset + _LOCAL.size : start].decode("latin-1")
    if not _NAME.fullmatch(name):
        raise _corrupt(f"it holds a member of an unsuitable name, {name[:80]!r}")
    if method != _STORED or extra_length:
        raise _corrupt(f"{name} is compressed or carries extra fields")
    content = data[start : start + size]
    if len(content) != size:
        raise _corrupt(f"it ends in the middle of {name}")
    if zlib.crc32(content) != crc:
        raise _corrupt(f"{name} is damaged")
    return name, content, start + size


def _corrupt(fault: str) -> PackageError:
    return PackageError(Code.PACKAGE_CORRUPT, f"this is no intact package: {fault}; fetch it again")
