"""Whether a file ends before its own structure says so.

Covers ISO BMFF (mp4, mov), Matroska and WebM, and AVI, whose headers state sizes. Transport
streams, FLV and the like are made to be cut anywhere; nothing can be said of them.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_TOP_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp uuid pnot udta meta prft emsg "
    b"pdin bloc jP\x20\x20".split()
)
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT_ID = 0x18538067
_MAX_BOXES = 1_000_000


def truncation(path: Path) -> str | None:
    """A sentence that says what is cut off, or None if nothing shows that something is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == _EBML:
            return _matroska(file, size)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _avi(file, size)
        if head[4:8] in _TOP_BOXES:
            return _iso_bmff(file, size)
    return None


def _iso_bmff(file: BinaryIO, size: int) -> str | None:
    """Walk the top-level boxes: ISO/IEC 14496-12, 4.2."""
    position = 0
    found: set[bytes] = set()
    for _ in range(_MAX_BOXES):
        if position >= size:
            break
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            if found & {b"moov"} and not header.strip(b"\0"):
                break
            return f"the last box header has {len(header)} of 8 bytes"
        (length,), kind = struct.unpack(">I", header[:4]), header[4:8]
        if kind not in _TOP_BOXES:
            # Padding or another format's trailer; what came before is whole.
            break
        if length == 1:
            if len(header) < 16:
                return f"the header of the last box ({kind.decode('latin-1')}) is cut off"
            (length,) = struct.unpack(">Q", header[8:16])
        elif length == 0:
            length = size - position
        if length < 8:
            break
        if position + length > size:
            name = kind.decode("latin-1")
            return (
                f"box {name} at byte {position} should have {length} bytes, "
                f"and the file ends after {size - position}"
            )
        found.add(kind)
        position += length
    if b"moov" not in found and found & {b"mdat", b"ftyp"}:
        return "the index (box moov) is missing: the file was never finished"
    return None


def _matroska(file: BinaryIO, size: int) -> str | None:
    """Compare the segment's size with the file's: RFC 9559; an unknown size says nothing."""
    file.seek(4)
    header_size = _vint(file)
    if header_size is None:
        return None
    file.seek(header_size, 1)
    position = file.tell()
    if position >= size:
        return "the file ends within or after its EBML header"
    if int.from_bytes(file.read(4), "big") != _SEGMENT_ID:
        return None
    length = _vint(file)
    if length is None:
        return None
    end = file.tell() + length
    if end > size:
        return f"the segment should end at byte {end}, and the file ends at {size}"
    return None


def _vint(file: BinaryIO) -> int | None:
    """An EBML variable-length size; None if it is the reserved unknown size or invalid."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    rest = file.read(extra)
    if len(rest) < extra:
        return None
    bits = 7 * (extra + 1)
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value


def _avi(file: BinaryIO, size: int) -> str | None:
    """Walk the RIFF chunks (OpenDML files have several); a size of 0 is a writer that died."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(8)
        if header[:4] != b"RIFF":
            return None
        (length,) = struct.unpack("<I", header[4:8])
        if length == 0:
            return f"RIFF chunk at byte {position} has no size: the file was never finished"
        end = position + 8 + length
        if end > size:
            return f"RIFF chunk at byte {position} should end at {end}, and the file ends at {size}"
        position = end + length % 2
    return None
