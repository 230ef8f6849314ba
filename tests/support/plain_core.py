"""Compile a core with the plain kernels alone: compilers check those best, and all kinds compile for minutes."""

from __future__ import annotations

import pathlib
import subprocess
import tempfile
import zlib
from collections.abc import Sequence

FLAGS = (
    "-shared",
    "-fPIC",
    "-O1",
    "-std=gnu11",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-w",
    "-Wno-psabi",
    "-DVC_PLAIN",
)
# dispatch.c with one kind
DISPATCH = """
#include "core.h"

extern const vc_kind vc_plain;
VC_API uint32_t vc_sources(void) { return VC_SOURCES; }
VC_API const char *vc_kind_name(int n) { return n ? NULL : vc_plain.name; }
VC_API vc_kernel vc_kernel_of(int n, const char *name) {
    for (const vc_entry *entry = vc_plain.kernels; !n && entry->name; entry++)
        if (!strcmp(entry->name, name)) return entry->kernel;
    return NULL;
}
"""


def compile_plain(output: pathlib.Path, sources: pathlib.Path, compiler: str = "cc", flags: Sequence[str] = ()) -> None:
    """Compile the C sources in a folder into a library; raises CalledProcessError where the compiler fails."""
    checksum = 0
    for path in sorted(sources.iterdir()):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    with tempfile.TemporaryDirectory() as folder:
        dispatch = pathlib.Path(folder, "dispatch.c")
        dispatch.write_text(DISPATCH)
        names = ("-DVC_KIND=plain", f"-DVC_SOURCES={checksum}u", f"-I{sources}")
        files = (str(sources / "kind.c"), str(dispatch))
        subprocess.run([compiler, *FLAGS, *names, *flags, *files, "-o", str(output)], check=True)
