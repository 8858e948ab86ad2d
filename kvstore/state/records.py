"""How one version of one key is stored. Standard library only: the storage process imports this too.

    record  := own 12 | previous 12 | anchor 12 | depth u8 | flags u8 | encoded mvccpb.KeyValue
    own, previous, anchor := revision main u64 | sub u32      (big-endian, so bytes compare as revisions do)

`previous` is the version of the same key before this one, twelve zero bytes for the first. `anchor` is the
nearest earlier version whose depth is 0, and depth counts versions modulo ANCHOR_EVERY. A reader that looks for
the newest version at or below a revision jumps from anchor to anchor while they are above it and then steps
back by `previous`: n/64 + 64 steps in a chain of n. Both may name versions that compaction has removed since;
a reader never follows one below the compaction point, where nothing may be read.
A tombstone's KeyValue holds the key and the revision alone, as etcd's delete events do.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # typing's own would cost the import
if TYPE_CHECKING:
    from collections.abc import Callable

Buffer = bytes | bytearray | memoryview

REVISION = struct.Struct(">QI")
NO_REVISION = bytes(REVISION.size)
SUB_MAX = 0xFFFF_FFFF
PREVIOUS_AT, ANCHOR_AT, DEPTH_AT, FLAGS_AT, KV_AT = 12, 24, 36, 37, 38
TOMBSTONE = 1
ANCHOR_EVERY = 64
DEPTH_AND_FLAGS = [[bytes((depth, flags)) for flags in (0, TOMBSTONE)] for depth in range(ANCHOR_EVERY)]
_KEY_TAG = 0x0A


def bound(revision: int) -> bytes:
    """The highest position a version of `revision` can have."""
    return REVISION.pack(revision, SUB_MAX)


def main_of(record: Buffer) -> int:
    return int.from_bytes(record[:8], "big")


def key_of(record: Buffer) -> bytes:
    """The key, which is a KeyValue's first field. Raises ValueError where the bytes are not a record."""
    if len(record) < KV_AT + 2 or record[KV_AT] != _KEY_TAG:
        raise ValueError(f"{len(record)} bytes are no record: no key after its header")
    at, shift, size = KV_AT + 1, 0, 0
    while True:
        byte = record[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if at + size > len(record):
        raise ValueError(f"a record of {len(record)} bytes ends inside its key of {size}")
    return bytes(record[at : at + size])


def version_at(record: Buffer, highest: bytes, fetch: Callable[[bytes], Buffer | None]) -> Buffer | None:
    """The newest version at or below `highest` in the chain that ends in `record`, or None.

    fetch(position) gives the whole record there, None where compaction removed it. The caller has checked
    that `highest` is not below the compaction point.
    """
    found: Buffer | None = record
    while found is not None and bytes(found[:12]) > highest:
        step = bytes(found[ANCHOR_AT:DEPTH_AT])
        if step <= highest:
            step = bytes(found[PREVIOUS_AT:ANCHOR_AT])
            if step == NO_REVISION:
                return None
        found = fetch(step)
    return found
