"""Fuzz the kernels that read a stranger's bytes with libFuzzer, without Python; needs clang.

    python tests/long/fuzz/native.py --seconds 600                       # ASan and UBSan
    python tests/long/fuzz/native.py --sanitizer memory                  # MSan
    python tests/long/fuzz/native.py --coverage                          # per cent of lines that the corpus reaches
    python tests/long/fuzz/native.py --minimise                          # leave inputs out that reach nothing new

Inputs that reach new code are kept in the folder `--corpus`; those of tests/long/fuzz/native_corpus are given, too.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
TESTS = HERE.parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from vaecodec.native.reference.lossless_bits import tables

SOURCES = TESTS.parent / "vaecodec" / "native" / "src"
SEEDS = HERE / "native_corpus"
SANITIZERS = {
    "address": ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"),
    "memory": ("-fsanitize=fuzzer,memory", "-fsanitize-memory-track-origins", "-fno-sanitize-recover=all"),
}
KINDS = {"plain": ("-DVC_PLAIN",), "sse2": (), "avx2": ("-DVC_256", "-mavx2", "-mfma")}
FLAGS = ("-O1", "-g1", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno")
LARGEST = 400  # bytes of an input
COVERED = (
    "lossless.h",
    "lossless_bits.h",
    "lossless_fit.h",
    "networks.h",
    "prior.h",
    "restoration.h",
    "symbols.h",
    "transforms.h",
    "trellis.h",
    "wavelet.h",
)


def build(program: pathlib.Path, kind: str, flags: tuple[str, ...]) -> None:
    """Compile the target; raises CalledProcessError where clang fails."""
    values = tables().tolist()
    header = f"static const uint16_t LOSSLESS_TABLES[{len(values)}] = {{{','.join(map(str, values))}}};\n"
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "tables.h").write_text(header)
        names = (f"-DVC_KIND={kind}", *KINDS[kind], f"-I{folder}", f"-I{SOURCES}")
        target = str(HERE / "native_target.c")
        subprocess.run(["clang", *FLAGS, *names, *flags, target, "-o", str(program)], check=True)


def coverage(folder: pathlib.Path, kind: str, corpora: list[str]) -> None:
    """Print the lines of each file that the corpora reach."""
    program, profile = folder / "target", folder / "profile"
    build(program, kind, ("-fsanitize=fuzzer", "-fprofile-instr-generate", "-fcoverage-mapping"))
    subprocess.run([program, "-runs=0", *corpora], env={"LLVM_PROFILE_FILE": str(profile)}, check=True)
    subprocess.run(["llvm-profdata", "merge", "-o", f"{profile}.all", profile], check=True)
    line = ["llvm-cov", "export", "-summary-only", program, f"-instr-profile={profile}.all"]
    report = json.loads(subprocess.run(line, capture_output=True, check=True, text=True).stdout)
    for file in report["data"][0]["files"]:
        name = pathlib.Path(file["filename"]).name
        if name in COVERED:
            lines, functions = file["summary"]["lines"], file["summary"]["functions"]
            print(
                f"{name}: {lines['percent']:.0f} % of {lines['count']} lines, {functions['percent']:.0f} % of functions"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--sanitizer", choices=SANITIZERS, default="address")
    parser.add_argument("--kind", choices=KINDS, default="plain")
    parser.add_argument("--corpus", type=pathlib.Path, help="where found inputs are kept; else they are lost")
    parser.add_argument("--coverage", action="store_true", help="only measure what the corpus reaches")
    parser.add_argument("--minimise", action="store_true", help="write the few inputs that reach as much to the seeds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        corpus = options.corpus or folder / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        SEEDS.mkdir(exist_ok=True)
        program, corpora = folder / "target", [str(corpus), str(SEEDS)]
        if options.coverage:
            return coverage(folder, options.kind, corpora)
        build(program, options.kind, SANITIZERS[options.sanitizer])
        if options.minimise:
            subprocess.run([program, "-set_cover_merge=1", SEEDS, corpus], check=True)
            return
        limits = (f"-max_total_time={options.seconds}", f"-max_len={LARGEST}", "-len_control=0", "-rss_limit_mb=2048")
        line = [program, *limits, "-print_final_stats=1", *corpora]
        sys.exit(subprocess.run(line, cwd=folder).returncode)


if __name__ == "__main__":
    main()
