"""Test that kernels on emulated processors write the results of the plain kernels on this machine.

Calls of kernels are recorded with their results, and repeated by a C program that Zig compiles for the other processor:
AArch64 under qemu-aarch64, WebAssembly under Node. Between kernels, decoders and encoders use exact integer arithmetic
in Python, so equal results of all kernels mean equal pixels and equal bytes.

    pip install ziglang; apt-get install qemu-user nodejs; pytest -m long tests/long/test_other_processors.py
"""

from __future__ import annotations

import ctypes
import importlib.util
import pathlib
import shutil
import struct
import subprocess
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from support.native import (
    SHAPES,
    SIZES,
    WIDTHS,
    random_before,
    random_block,
    random_dense,
    random_depthwise,
    random_int16,
    random_int32,
    random_octave,
    run_octave,
)
from support.paths import GOLDEN, MODELS, ROOT
from vaecodec.codec import Codec
from vaecodec.container import image_file
from vaecodec.entropy import coding
from vaecodec.model.file import Model, parse_model
from vaecodec.native import build, library
from vaecodec.native.networks import block, dense, depthwise
from vaecodec.native.prior import cells_of

pytestmark = pytest.mark.long
HERE = pathlib.Path(__file__).parent
GIVEN, MEMORY, ADDRESSES = range(3)  # as in replay.c
TARGETS = {  # kind: Zig's target, its architecture, and the command that runs the program
    "neon": ("aarch64-linux-musl", "aarch64", ["qemu-aarch64"]),
    "wasm": ("wasm32-wasi", "wasm32", ["node", "--no-warnings", str(HERE / "wasi.mjs")]),
    "sse2": ("x86_64-linux-musl", "x86_64", []),
}


class Recorder:
    """Replace library.call, and write all inputs and outputs to a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self.file, self.signatures = path.open("wb"), list[str]()
        self._call, self._memory = library.call, library.memory
        # By address; all arrays are kept, so an address never names two arrays.
        self._kept: dict[int, np.ndarray] = {}
        self._lists: dict[int, np.ndarray] = {}

    def memory(self, lines: int) -> np.ndarray:
        """Replace library.memory by memory of zeros."""
        memory = self._memory(lines)
        memory[:] = 0
        self._kept[library.pointer(memory)] = memory
        return memory

    def __call__(self, name: str, signature: str, *arguments: object) -> int:
        if signature not in self.signatures:
            self.signatures.append(signature)
        self._numbers(self.signatures.index(signature), len(name))
        self.file.write(name.encode())
        for letter, argument in zip(signature, arguments, strict=True):
            self._put(letter, argument)
        result = self._call(name, signature, *arguments)
        for argument in arguments:
            if isinstance(argument, np.ndarray) and self._form(argument) == GIVEN:
                self.file.write(_span(argument))
        return result

    def addresses(self, pointers: Sequence[int]) -> np.ndarray:
        """Replace library.addresses."""
        array = np.array(pointers, np.uintp)
        self._lists[library.pointer(array)] = array
        return array

    def _form(self, array: np.ndarray) -> int:
        address = library.pointer(array)
        return MEMORY if address in self._kept else ADDRESSES if address in self._lists else GIVEN

    def _put(self, letter: str, argument: object) -> None:
        if letter != "p":
            self._numbers(int(argument))  # type: ignore[call-overload]
        elif not isinstance(argument, np.ndarray):
            # None, or the address of a packed layer
            self._numbers(*((GIVEN, -1) if not argument else (MEMORY, argument, 0)))
        elif self._form(argument) == ADDRESSES:
            self._numbers(ADDRESSES, len(argument), *argument.tolist())
        elif self._form(argument) == MEMORY:
            self._numbers(MEMORY, library.pointer(argument), argument.nbytes)
        else:
            span = _span(argument)
            self._numbers(GIVEN, len(span))
            self.file.write(span)

    def _numbers(self, *values: int) -> None:
        self.file.write(struct.pack(f"<{len(values)}q", *values))

    def calls(self) -> str:
        """Return a C header that calls a kernel of each signature."""
        types = {"i": "int32_t", "q": "int64_t", "p": "void *"}
        quoted = ", ".join(f'"{signature}"' for signature in self.signatures)
        lines = [f"static const char *const SIGNATURES[] = {{{quoted}}};"]
        lines += ["static void call_kernel(int signature, vc_kernel kernel, const argument *a) {"]
        for number, signature in enumerate(self.signatures):
            prototype = ", ".join(types[letter] for letter in signature)
            values = ", ".join(
                f"a[{n}].pointer" if letter == "p" else f"({types[letter]})a[{n}].number"
                for n, letter in enumerate(signature)
            )
            lines.append(f"    if (signature == {number}) ((int32_t (*)({prototype}))kernel)({values});")
        return "\n".join([*lines, "}", ""])


def _span(array: np.ndarray) -> bytes:
    """Return all bytes from the first element to the last, including those between the rows of a view."""
    if array.flags.c_contiguous:
        return array.tobytes()
    assert array.size and min(array.strides) > 0
    size = sum((count - 1) * stride for count, stride in zip(array.shape, array.strides, strict=True)) + array.itemsize
    return ctypes.string_at(library.pointer(array), size)


def every_kernel(rng: np.random.Generator) -> None:
    """Call all kernels of networks and of the prior with random arrays."""
    for channels in WIDTHS:
        for form in ("linear", "relu", "gate", "sums"):
            layer = random_dense(rng, 9, channels * (1 + (form == "gate")), 1023, form=form)
            dense(layer, random_int16(rng, (11, 9), 32767))
        layer, x, residual = (
            random_dense(rng, 8, channels),
            random_int16(rng, (5, 8), 1023),
            random_int16(rng, (5, channels), 1023),
        )
        dense(layer, x, vector=rng.integers(-999, 999, channels))
        dense(layer, x, residual=residual)
        dense(layer, x, residual=residual, multiplier=rng.integers(0, 32768, channels))
        for size in SIZES[::2]:
            depthwise(random_depthwise(rng, channels), random_int16(rng, (*size, channels), 32767))
            block(random_block(rng, channels, 32767), random_int16(rng, (*size, channels), 32767))
    for octave in (0, 2, 4):
        for shape in SHAPES:
            networks = random_octave(rng, octave, width=int(rng.choice([16, 21, 32])))
            before = random_before(rng, networks, shape, octave == 4)
            vector, first_values = (
                random_int32(rng, (networks.features,), 1000),
                random_int32(rng, (*cells_of(shape), 18)),
            )
            run_octave(networks, vector, before, first_values)


def random_calls(tmp_path: pathlib.Path) -> None:
    every_kernel(np.random.default_rng(0))


def new_codec(path: pathlib.Path) -> Codec:
    """A codec whose layers are not packed yet, so that the recording includes packing."""
    model = parse_model(path.read_bytes(), path.stem)
    assert isinstance(model, Model)
    return Codec(model, threads=1)


def golden_files(tmp_path: pathlib.Path) -> None:
    """Decode all golden files of latents with the decoder of the core, and encode their images again."""
    codec = new_codec(GOLDEN / "tiny.vcm")
    for path in sorted(GOLDEN.glob("*.vae")):
        data = path.read_bytes()
        if image_file.parse(data).header.model == codec.model.id:
            codec.encode(codec.decode(data, check=True), 50, tile=64)


def photographs(tmp_path: pathlib.Path) -> None:
    """Encode and decode a photograph with the shipped model at three qualities."""
    codec = new_codec(MODELS / "small.vcm")
    pixels = np.asarray(Image.open(ROOT / "docs" / "examples" / "parrots.png").convert("RGB"))[128:384, 256:640]
    for quality in (20, 50, 85):
        codec.decode(codec.encode(pixels, quality), check=True)


@pytest.mark.parametrize("calls", [random_calls, golden_files, photographs])
@pytest.mark.parametrize("kind", TARGETS)
def test_other_processors_compute_the_same_results(kind, calls, kinds, tmp_path, monkeypatch):
    target, architecture, runner = TARGETS[kind]
    if importlib.util.find_spec("ziglang") is None or (runner and shutil.which(runner[0]) is None):
        pytest.skip("needs ziglang and " + " ".join(runner[:1]))
    recorder = Recorder(tmp_path / "calls")
    monkeypatch.setattr(library, "call", recorder)
    monkeypatch.setattr(library, "memory", recorder.memory)
    monkeypatch.setattr(library, "addresses", recorder.addresses)
    monkeypatch.setenv("VAECODEC_CODER", "core")
    coding._constriction.cache_clear()
    try:
        with library.use("plain"):
            calls(tmp_path)
    finally:
        monkeypatch.undo()
        coding._constriction.cache_clear()
    recorder.file.close()
    (tmp_path / "calls.h").write_text(recorder.calls())
    program = tmp_path / f"replay{'.wasm' if architecture == 'wasm32' else ''}"
    includes = (f"-I{tmp_path}", f"-I{build.SOURCES}")
    # Node 20 crashes when the memory of a WASI program grows.
    memory = ("-Wl,--initial-memory=1073741824",) if architecture == "wasm32" else ()
    build.build(program, build.zig(target), architecture, includes, shared=(str(HERE / "replay.c"), *memory))
    program.chmod(0o755)
    command = [*runner, str(program), kind, str(tmp_path / "calls")]
    process = subprocess.run(command, capture_output=True, text=True)
    # Node 20 may crash at the end of a WASI program, so only its output counts.
    *calls, verdict = process.stdout.split() or [""]
    assert verdict == "equal" and len(calls) > 500, process.stdout[-500:] + process.stderr
