"""Standard descriptors of processes that were started without them, such as daemons."""

from __future__ import annotations

import os


def fill() -> None:
    """Open each of the descriptors 0, 1 and 2 that is closed, on the null device.

    The next file that is opened would get its number otherwise, and libraries write messages to number 2.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.dup(descriptor)
    os.close(descriptor)
