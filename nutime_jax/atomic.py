"""Files that are complete or absent: written next to their place, then renamed."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def open_atomically(path: Path, mode: str = "wb", *, sync: bool = False, **options: Any) -> Iterator[IO]:
    """Open a temporary file next to `path`, which takes its place when the block ends and is deleted when the block fails.

    Readers see the old file or the new one; an older file is replaced.

    Args:
        mode: "wb", or "w" for text.
        sync: whether the content is on the disk before it takes its place.
        options: of `open`, such as `newline` and `encoding`.

    Raises:
        OSError: the file cannot be written.
    """
    pending = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with open(pending, mode, **options) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(pending, path)
    finally:
        pending.unlink(missing_ok=True)
