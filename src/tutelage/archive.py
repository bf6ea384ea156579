"""A zip archive with exactly one byte form: equal members give equal bytes, and nothing can hide between them.

Members are stored, not compressed (no bombs; weights do not compress anyway), in the order given, dated 1980-01-01,
without comments or extra fields (PKWARE APPNOTE 6.3.10 §4.3 to §4.4). Any zip tool can open the result. Reading is
strict: whatever does not come out the same when packed again is refused, so each byte of a file counts.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tutelage.errors import Code, PackageError

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_VERSION = 20
_MADE_BY_UNIX = (3 << 8) | _VERSION
_NO_FLAGS, _STORED, _MIDNIGHT, _FIRST_OF_1980 = 0, 0, 0, 0x21
_REGULAR_FILE_0644 = 0o100644 << 16
_PIECE_BYTES = 1 << 20  # of a member: looked at while they are in the processor's cache
_MAX_MEMBERS = 16  # bounds the work on a file made of millions of empty members
_NAME = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*")  # no folders, no case, nothing a file system could trip over


def pack(members: Mapping[str, bytes]) -> bytes:
    """The archive of `members` in their order; names are lower-case words joined by dots."""
    local, described, offset = [], [], 0
    for name, content in members.items():
        member = _Member(name, len(content), zlib.crc32(content), offset)
        head = member.local_header()
        described.append(member)
        local += [head, content]
        offset += len(head) + len(content)
    return b"".join([*local, _directory(described, offset)])


def whole(end: int) -> None:
    """For `unpack`, where all bytes are there."""


def unseen(name: str, piece: memoryview) -> None:
    """For `unpack`, where nobody else looks at the members."""


def unpack(
    data: bytes | memoryview,
    *,
    arrived: Callable[[int], None] = whole,
    seen: Callable[[str, memoryview], None] = unseen,
) -> dict[str, memoryview]:
    """The members of an archive that `pack` could have made, in their order, where they lie in `data`: not copies.

    `arrived` returns once so many bytes from the beginning of `data` are there: an archive is checked while it still
    arrives. `seen` is told of each member piece by piece, before it is known whether the archive is intact.

    Raises:
        PackageError: `package-corrupt`, anything else, with the first fault found.
    """
    view = memoryview(data)
    arrived(min(_LOCAL.size, len(view)))
    if view[:4] != _LOCAL_SIGNATURE:
        raise _corrupt("it does not begin like a zip archive")
    members: dict[str, memoryview] = {}
    described, offset = [], 0
    while view[offset : offset + 4] == _LOCAL_SIGNATURE:
        member, content = _read(view, offset, arrived, seen)
        if member.name in members or len(members) == _MAX_MEMBERS:
            raise _corrupt(f"it holds {member.name} twice, or too many members")
        members[member.name] = content
        described.append(member)
        offset = member.end
        arrived(min(offset + _LOCAL.size, len(view)))
    arrived(len(view))
    if view[offset:] != _directory(described, offset):
        raise _corrupt("its directory does not fit its members")
    return members


@dataclass(frozen=True)
class _Member:
    """What an archive says of one member."""

    name: str
    size: int
    crc: int
    offset: int

    @property
    def start(self) -> int:
        """Where its content begins."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        return self.start + self.size

    def _described(self) -> tuple[int, ...]:
        common = (_VERSION, _NO_FLAGS, _STORED, _MIDNIGHT, _FIRST_OF_1980, self.crc)
        return (*common, self.size, self.size, len(self.name), 0)

    def local_header(self) -> bytes:
        """What stands before its content."""
        return _LOCAL.pack(_LOCAL_SIGNATURE, *self._described()) + self.name.encode()

    def central_header(self) -> bytes:
        """What the directory says of it."""
        rest = (0, 0, 0, _REGULAR_FILE_0644, self.offset)
        return _CENTRAL.pack(_CENTRAL_SIGNATURE, _MADE_BY_UNIX, *self._described(), *rest) + self.name.encode()


def _directory(members: Sequence[_Member], offset: int) -> bytes:
    """All that follows the last member, which ends at `offset`."""
    directory = b"".join(member.central_header() for member in members)
    return directory + _END.pack(_END_SIGNATURE, 0, 0, len(members), len(members), len(directory), offset, 0)


def _read(
    view: memoryview, offset: int, arrived: Callable[[int], None], seen: Callable[[str, memoryview], None]
) -> tuple[_Member, memoryview]:
    """The member at `offset`, whose header is there, and its content, once that is there too."""
    if len(view) < offset + _LOCAL.size:
        raise _corrupt("it ends in the middle of a header")
    _, _, _, method, _, _, crc, size, _, name_length, extra_length = _LOCAL.unpack_from(view, offset)
    start = offset + _LOCAL.size + name_length
    arrived(min(start, len(view)))
    name = bytes(view[offset + _LOCAL.size : start]).decode("latin-1")
    if not _NAME.fullmatch(name):
        raise _corrupt(f"it holds a member of an unsuitable name, {name[:80]!r}")
    if method != _STORED or extra_length:
        raise _corrupt(f"{name} is compressed or carries extra fields")
    content = view[start : start + size]
    if len(content) != size:
        raise _corrupt(f"it ends in the middle of {name}")
    found = 0
    for begin in range(0, size, _PIECE_BYTES):
        piece = content[begin : begin + _PIECE_BYTES]
        arrived(start + begin + len(piece))
        found = zlib.crc32(piece, found)
        seen(name, piece)
    if found != crc:
        raise _corrupt(f"{name} is damaged")
    member = _Member(name, size, crc, offset)
    if view[offset:start] != member.local_header():
        raise _corrupt(f"the header of {name} is not in the one form")
    return member, content


def _corrupt(fault: str) -> PackageError:
    return PackageError(Code.PACKAGE_CORRUPT, f"this is no intact package: {fault}; fetch it again")
