"""A file that was asked for and cannot be written: another name helps, or more room."""

from __future__ import annotations

import errno
from typing import Final

from fl_node.errors import FlNodeError, StoreFull, UsageError

#: The disk is full, read-only or broken, whatever the file's name.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})


def unwritable(what: object, cause: OSError, instead: str) -> FlNodeError:
    """The error to raise.

    Args:
        what: the file, as its user named it.
        instead: where else it may go, such as ``name another file with --out``.

    >>> unwritable("x.zip", OSError(errno.ENOSPC, "No space left on device"), "name another file with --out")
    StoreFull('cannot write x.zip: No space left on device; free some space, or name another file with --out')
    """
    if cause.errno in NO_ROOM:
        return StoreFull(f"cannot write {what}: {cause.strerror}; free some space, or {instead}")
    return UsageError(f"cannot write {what}: {cause.strerror}; {instead}")
