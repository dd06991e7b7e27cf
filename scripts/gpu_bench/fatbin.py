"""Device code inside a shared library: by compute capability, and all but one taken out so that the library packs small.

A fat binary begins with a magic number, a version, the size of its header and of what follows. Its entries follow, one for each
compute capability: the kind (PTX or machine code), the size of the entry's header and of the code, and the capability.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = struct.pack("<I", 0xBA55ED50)
HEADER = struct.Struct("<IHHQ")
ENTRY = struct.Struct("<HHIQ12xI")
MACHINE_CODE = 2


@dataclass(frozen=True)
class Code:
    """The code of one entry."""

    kind: int
    # Such as 90.
    compute: int
    offset: int
    size: int


def fat_binaries(library: bytes | bytearray) -> Iterator[list[Code]]:
    """The fat binaries of a library, each as its entries."""
    at = 0
    while (at := library.find(MAGIC, at)) >= 0:
        _, _, header, size = HEADER.unpack_from(library, at)
        entry, end = at + header, at + header + size
        if header != HEADER.size or end > len(library):
            # Four bytes that look like it.
            at += 1
            continue
        entries = []
        while entry < end:
            kind, _, head, size, compute = ENTRY.unpack_from(library, entry)
            entries.append(Code(kind, compute, entry + head, size))
            entry += head + size
        if entry != end:
            raise ValueError(f"the fat binary at byte {at} has entries that end at byte {entry} and not at {end}")
        yield entries
        at = end


def prune(library: bytes | bytearray, compute: int) -> bytearray:
    """The library with zeros in place of device code; every offset and size stays as it is.

    What stays is the machine code for `compute` in fat binaries that have code for several. Code for `compute` alone is of kernels
    that only this chip has, in ONNX Runtime grouped and quantised matrix products: half of the size, and no use to a policy in
    floating point.
    """
    pruned, kept = bytearray(library), 0
    for entries in fat_binaries(library):
        for code in entries:
            if code.kind == MACHINE_CODE and code.compute == compute and len(entries) > 1:
                kept += code.size
            else:
                pruned[code.offset : code.offset + code.size] = bytes(code.size)
    if not kept:
        there = sorted({code.compute for entries in fat_binaries(library) for code in entries})
        raise ValueError(f"no machine code for compute capability {compute}; there is {there or 'no device code'}")
    return pruned
