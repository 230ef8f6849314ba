"""Count how often one `vaecodec compress` changes module: what a reader of its calls has to follow.

    python tests/long/module_changes.py [IMAGE [ARGUMENT...]]

A change is a call of a function of the package whose module is not that of the call before.  The package `native` is
counted as one module, too: it is the binding of a library, and a third of all calls are of its checks of arguments.
Comprehensions and the importing of modules do not count.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import sys
import tempfile
import threading
from collections import Counter
from types import FrameType
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
PHOTO = ROOT / "docs" / "examples" / "parrots.png"
NATIVE = "native"


class Tracer:
    """Counts calls into the modules of a package, in the thread that it is set in."""

    def __init__(self, package: pathlib.Path) -> None:
        self._prefix = f"{package}{os.sep}"
        self.calls: Counter[str] = Counter()  # of functions, by module
        self.changes = 0
        self.changes_above = 0  # with `native` as one module
        self._last = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """What sys.setprofile calls."""
        if event != "call" or frame.f_code.co_name.startswith("<"):
            return
        path = frame.f_code.co_filename
        if not path.startswith(self._prefix):
            return
        module = path.removeprefix(self._prefix)
        self.calls[module] += 1
        self.changes += module != self._last
        self.changes_above += _binding(module) != _binding(self._last)
        self._last = module


def _binding(module: str) -> str:
    """The module, or "native" for those of this package."""
    return NATIVE if module.split(os.sep)[0] == NATIVE else module


def trace(package: pathlib.Path, arguments: list[str]) -> Tracer:
    """Run the command line under a tracer, once after a run that imports and caches."""
    from vaecodec.cli import main

    tracer = Tracer(package)
    for profile in (None, tracer):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            sys.setprofile(profile)
            threading.setprofile(profile)
            try:
                main(arguments)
            finally:
                sys.setprofile(None)
                threading.setprofile(None)
    return tracer


def main(image: str = str(PHOTO), *options: str) -> None:
    import vaecodec

    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "image.vae")
        arguments = ["compress", "-f", "--threads", "1", *options, image, "-o", target]
        tracer = trace(pathlib.Path(vaecodec.__file__).parent, arguments)
    print(f"{len(tracer.calls)} modules, {sum(tracer.calls.values())} calls")
    print(f"{tracer.changes} changes of module, {tracer.changes_above} with native as one module")
    for module, calls in tracer.calls.most_common(15):
        print(f"{calls:7} {module}")


if __name__ == "__main__":
    main(*sys.argv[1:])
