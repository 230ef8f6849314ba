"""Change the package in one place at a time, and count the changes that its tests notice.

    python tests/long/mutants.py                  # a sample of 6 mutants of each module, from seed 0
    python tests/long/mutants.py --each 2 --seed 1
    python tests/long/mutants.py --list           # without running them
    python tests/long/mutants.py atomic.py:9      # by name

The places are found in the syntax tree and drawn from a seed; nobody chooses them.  An operator becomes its opposite, a
number one more, a truth value the other one; `not`, a call whose result is not used, or a `raise` is taken away.
A mutant is killed where its tests fail, or run for longer than MINUTES.  Survivors that no test can notice are in
EQUIVALENT, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import constriction  # noqa: F401
import hypothesis  # noqa: F401
import PIL.Image  # noqa: F401
import pytest
import safetensors.numpy  # noqa: F401

ROOT = pathlib.Path(__file__).parents[2]
MINUTES = 30
DAMAGE = "tests/integration/test_damage.py"
CONTAINER = "tests/unit/container/test_container.py"
FORMAT = "tests/integration/test_wavelet_format.py"
# A module of vaecodec, and the tests that should notice, the quickest first.
MODULES = {
    "container/__init__.py": (CONTAINER, "tests/unit/container/test_stored.py", "tests/unit/codec/test_modes.py"),
    "container/image_file.py": (
        "tests/unit/container/test_corpus.py",
        CONTAINER,
        "tests/unit/codec/test_codec.py",
        DAMAGE,
    ),
    "container/stored.py": ("tests/unit/container/test_stored.py", "tests/unit/files"),
    "container/info.py": (
        "tests/unit/container/test_image_set.py",
        "tests/unit/generative/test_image_sets.py",
        "tests/unit/container/test_corpus.py",
    ),
    "codec/tiles.py": ("tests/unit/codec/test_threads.py", "tests/unit/codec/test_codec.py"),
    "entropy/__init__.py": ("tests/unit/entropy", "tests/unit/model/test_model_file.py"),
    "entropy/coding.py": ("tests/unit/entropy", FORMAT),
    "entropy/scale_offsets.py": ("tests/unit/entropy", FORMAT),
    "atomic.py": ("tests/unit/test_atomic.py", "tests/unit/files", "tests/system/test_crash.py"),
    "arguments.py": ("tests/unit/codec/test_options.py", CONTAINER, "tests/unit/codec/test_codec.py", DAMAGE),
    "files/__init__.py": ("tests/unit/files", "tests/unit/test_atomic.py"),
    "model/file.py": ("tests/unit/model", FORMAT),
    "model/network.py": ("tests/unit/model", "tests/unit/generative", FORMAT),
    "model/weights.py": ("tests/unit/model", FORMAT),
    "lossless.py": ("tests/unit/lossless", "tests/unit/codec/test_adaptive.py"),
}
# Survivors that no test can notice: the module, the line as the mutant has it, and the reason.
EQUIVALENT = {
    ("entropy/__init__.py", "if needed >= len(words):"): "memory grows one symbol earlier, and only its size differs",
}
OPPOSITE: dict[type[ast.AST], tuple[type[ast.AST], str, str]] = {
    ast.Lt: (ast.LtE, "<", "<="),
    ast.LtE: (ast.Lt, "<=", "<"),
    ast.Gt: (ast.GtE, ">", ">="),
    ast.GtE: (ast.Gt, ">=", ">"),
    ast.Eq: (ast.NotEq, "==", "!="),
    ast.NotEq: (ast.Eq, "!=", "=="),
    ast.In: (ast.NotIn, " in ", " not in "),
    ast.NotIn: (ast.In, " not in ", " in "),
    ast.Is: (ast.IsNot, " is ", " is not "),
    ast.IsNot: (ast.Is, " is not ", " is "),
    ast.And: (ast.Or, " and ", " or "),
    ast.Or: (ast.And, " or ", " and "),
    ast.Add: (ast.Sub, "+", "-"),
    ast.Sub: (ast.Add, "-", "+"),
    ast.Mult: (ast.Add, "*", "+"),
    ast.FloorDiv: (ast.Mult, "//", "*"),
    ast.Mod: (ast.FloorDiv, "%", "//"),
    ast.LShift: (ast.RShift, "<<", ">>"),
    ast.RShift: (ast.LShift, ">>", "<<"),
    ast.BitAnd: (ast.BitOr, "&", "|"),
    ast.BitOr: (ast.BitAnd, "|", "&"),
}


class Mutant(NamedTuple):
    """Bytes from `begin` to `end` of a module's source, and what replaces them."""

    module: str
    number: int  # in its module
    begin: int
    end: int
    after: str

    @property
    def name(self) -> str:
        return f"{self.module}:{self.number}"


class Places(ast.NodeVisitor):
    """Collect the places of a module that can be changed."""

    def __init__(self, source: bytes) -> None:
        self._source, self.changes = source, list[tuple[int, int, str]]()
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._lines[node.lineno - 1] + node.col_offset, self._lines[node.end_lineno - 1] + node.end_col_offset

    def _operator(self, operator: ast.AST, left: ast.expr, right: ast.expr) -> None:
        if type(operator) not in OPPOSITE:
            return
        _, before, after = OPPOSITE[type(operator)]
        begin, end = self._span(left)[1], self._span(right)[0]
        between = self._source[begin:end].decode()
        if "#" not in between and between.count(before) == 1:
            at = begin + len(between[: between.index(before)].encode())
            self.changes.append((at, at + len(before), after))

    def visit_Compare(self, node: ast.Compare) -> None:
        for operator, left, right in zip(node.ops, [node.left, *node.comparators], node.comparators, strict=False):
            self._operator(operator, left, right)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._operator(node.op, left, right)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._operator(node.op, node.left, node.right)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            begin, end = self._span(node)[0], self._span(node.operand)[0]
            self.changes.append((begin, end, "(" * self._source.count(b"(", begin, end)))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.changes.append((*self._span(node), str(not node.value)))
        elif isinstance(node.value, int):
            self.changes.append((*self._span(node), str(node.value + 1)))

    def visit_Raise(self, node: ast.Raise) -> None:
        self.changes.append((*self._span(node), "pass"))

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.changes.append((*self._span(node), "pass"))
            self.generic_visit(node)

    # What has no effect on a run: annotations, texts, and sizes of caches.
    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "stacklevel":
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)


def mutants_of(module: str) -> Iterator[Mutant]:
    """All mutants of a module, in the order of their places."""
    source = (ROOT / "vaecodec" / module).read_bytes()
    places = Places(source)
    places.visit(ast.parse(source))
    for number, (begin, end, after) in enumerate(sorted(set(places.changes))):
        yield Mutant(module, number, begin, end, after)


def lines(mutant: Mutant, source: bytes) -> tuple[str, str]:
    """The lines that a mutant changes, before and after, with single spaces."""
    begin, end = source.rfind(b"\n", 0, mutant.begin) + 1, source.find(b"\n", mutant.end)
    after = source[begin : mutant.begin] + mutant.after.encode() + source[mutant.end : end]
    return " ".join(source[begin:end].decode().split()), " ".join(after.decode().split())


def described(mutant: Mutant, source: bytes) -> str:
    """The name, and the change."""
    before, after = lines(mutant, source)
    line = source.count(b"\n", 0, mutant.begin) + 1
    return f"{mutant.name} (line {line}): {before[:110]}\n      -> {after[:110]}"


def tests_fail(tests: str, clone: pathlib.Path) -> bool:
    """Whether one of the tests in a file or folder fails in a clone, crashes, or does not end.

    The tests run in a fork of this process, which has imported their libraries but not the package.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 99
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nowhere, descriptor)
            os.chdir(clone)
            sys.path.insert(0, str(clone))
            sys.dont_write_bytecode = True
            os.environ |= {"PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}
            status = int(pytest.main(["-q", "-x", "-n", "0", "-p", "no:cacheprovider", tests]))
        finally:
            os._exit(status)
    until = time.monotonic() + 60 * MINUTES
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def killed(mutant: Mutant, clone: pathlib.Path, sound: set[str]) -> bool:
    """Whether the tests of the module notice this mutant; `sound` collects those that pass without one."""
    path = clone / "vaecodec" / mutant.module
    source = path.read_bytes()
    for tests in MODULES[mutant.module]:
        path.write_bytes(source[: mutant.begin] + mutant.after.encode() + source[mutant.end :])
        try:
            dead = tests_fail(tests, clone)
        finally:
            path.write_bytes(source)
        if dead and tests not in sound:
            if tests_fail(tests, clone):
                sys.exit(f"{tests} fails without a mutant")
            sound.add(tests)
        if dead:
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="mutants, such as atomic.py:9; without, a sample")
    parser.add_argument("--each", type=int, default=6, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="only list them")
    options = parser.parse_args()
    sample: list[Mutant] = []
    for module in MODULES:
        candidates = list(mutants_of(module))
        if options.names:
            sample += [mutant for mutant in candidates if mutant.name in options.names]
        else:
            rng = random.Random(f"{options.seed} {module}")
            sample += sorted(rng.sample(candidates, min(options.each, len(candidates))))
    random.Random(options.seed).shuffle(sample)  # so that a run that is ended early has seen all modules
    survivors, equivalent = [], 0
    with tempfile.TemporaryDirectory() as folder:
        clone = pathlib.Path(folder, "clone")
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, clone, ignore=ignored)
        sound = set[str]()
        for mutant in sample:
            source = (clone / "vaecodec" / mutant.module).read_bytes()
            text, key = described(mutant, source), (mutant.module, lines(mutant, source)[1])
            if options.list:
                print(text)
                continue
            began = time.monotonic()
            verdict = "killed" if killed(mutant, clone, sound) else "SURVIVED"
            if verdict == "SURVIVED" and key in EQUIVALENT:
                verdict, equivalent = f"equivalent ({EQUIVALENT[key]})", equivalent + 1
            elif verdict == "SURVIVED":
                survivors.append(mutant)
            print(f"{verdict}, {time.monotonic() - began:.0f} s: {text}", flush=True)
    if not options.list:
        dead = len(sample) - equivalent - len(survivors)
        print(f"{dead} of {len(sample)} mutants killed, {equivalent} equivalent, {len(survivors)} survived")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
