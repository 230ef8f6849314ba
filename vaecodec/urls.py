"""Read and write files at URLs, such as https://, s3:// and memory://, through fsspec (extra `fsspec`)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vaecodec.errors import CodecError

URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]+)*://")


def is_url(file: object) -> bool:
    """Whether a file is named by a URL.  A scheme has two letters or more, so a drive of Windows is none."""
    return isinstance(file, str) and URL.match(file) is not None


def read_url(url: str) -> bytes:
    """Read a file; raises FileNotFoundError if it is missing, CodecError for another failure."""
    with _opened(url) as (files, path):
        data: bytes = files.cat_file(path)
        return data


def write_url(url: str, data: bytes) -> None:
    """Write a file, or replace it; raises CodecError if that fails."""
    with _opened(url) as (files, path):
        files.pipe_file(path, data)


def check_url_target(url: str, overwrite: bool) -> None:
    """Raise FileExistsError if a file exists that may not be replaced."""
    with _opened(url) as (files, path):
        if not overwrite and files.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url)


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL, and the path in it; errors of its library become CodecError."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as exc:
        raise CodecError(f"{url}: URLs need another package: pip install 'vaecodec[fsspec]' ({exc})") from exc
    try:
        yield url_to_fs(url)
    except FileNotFoundError as exc:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from exc
    except (FileExistsError, CodecError):
        raise
    except Exception as exc:  # the library of a scheme may raise anything
        raise CodecError(f"{url}: {exc or type(exc).__name__}") from exc
