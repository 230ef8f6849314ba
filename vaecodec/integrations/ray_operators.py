"""The operators of a run by Ray Data, each a part of the way from a file to its .vae file.

job --read--> picture --Analyse, on GPUs or CPUs--> latents --Finish--> outcome, its file written

They pass tables of rows on, each the number of a job and, pickled, what is known of it; Ray itself is not needed here.
Whatever goes wrong on the way is left to Finish, which then takes the file as the folder mode does.
"""

from __future__ import annotations

import os
import pickle
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vaecodec.codec import modes
from vaecodec.codec.codec import Codec, load
from vaecodec.codec.rate_control import Target
from vaecodec.codec.tiles import Latents
from vaecodec.console import hushed
from vaecodec.errors import CodecError, ModelError
from vaecodec.files.compression import convert_file
from vaecodec.files.folders import Job
from vaecodec.files.outputs import (
    ChooseTarget,
    ImageContent,
    Output,
    Resources,
    encode_image,
    encode_source,
    read_source_image,
    store_file,
)
from vaecodec.files.runs import JobRunner, Outcome, compress_job
from vaecodec.files.sources import Source
from vaecodec.images.inspection import is_image
from vaecodec.images.strips import is_large
from vaecodec.limits import NONE, for_pillow

SCHEMA = pa.schema([("number", pa.int64()), ("content", pa.large_binary())])


class Settings(NamedTuple):
    """What all operators are told; `options` are those of compress_file, `id` the model's."""

    wanted: float | Target
    options: dict[str, Any]
    id: str
    how: str  # for manifests

    @property
    def resources(self) -> Resources:
        """Those of a process that has one core: the others have processes of their own."""
        return Resources(self.options["limits"], 1)

    def load(self, device: str = "cpu") -> Codec:
        """The codec, one to a process; raises ModelError where this machine has another model of the name."""
        codec = load(self.options["model"], device, threads=1)
        if codec.model.id != self.id:
            raise ModelError(f"{platform.node()} has model {codec.model.id}, and the run began with {self.id}")
        return codec


class Task(NamedTuple):
    """A job on its way, with what has been made of it so far."""

    job: Job
    picture: ImageContent | None = None
    seen: tuple[int, int] = (0, 0)  # how the file looked when it was read
    latents: list[Latents] | None = None


def table_of(rows: Iterable[tuple[int, Any]]) -> pa.Table:
    """(number, anything) of each row, for `rows_of`."""
    numbers, contents = zip(*((number, pickle.dumps(content, 5)) for number, content in rows), strict=True)
    return pa.table({"number": numbers, "content": contents}, SCHEMA)


def rows_of(table: pa.Table) -> Iterator[tuple[int, Any]]:
    """The rows of `table_of`."""
    for number, content in zip(table["number"], table["content"], strict=True):
        yield number.as_py(), pickle.loads(content.as_buffer())


def read(table: pa.Table, settings: Settings) -> Iterator[pa.Table]:
    """Lists of (number, job) -> tasks."""
    for _, jobs in rows_of(table):
        for number, job in jobs:
            yield table_of([(number, _read(job, settings))])


def _read(job: Job, settings: Settings) -> Task:
    """A task with its picture; without one where the file is none, or large, or cannot be read."""
    with suppress(Exception), hushed(), Source(job.path) as source, for_pillow(settings.resources.limits or NONE):
        if is_image(source.rewind(), source.name) and not _is_large(source):
            return Task(job, read_source_image(source), _look(source))
    return Task(job)


def _is_large(source: Source) -> bool:
    """Whether a picture is better read in strips, by whoever codes it, than sent from one process to another."""
    from PIL import Image

    with Image.open(source.rewind()) as image:
        return is_large(image.height, image.width)


def _look(source: Source) -> tuple[int, int]:
    found = os.fstat(source.file.fileno())
    return found.st_size, found.st_mtime_ns


class Analyse:
    """Tasks -> the same with latents, those of several pictures at once where that is faster."""

    def __init__(self, settings: Settings, device: str) -> None:
        assert not isinstance(settings.wanted, Target)
        self._codec, self._quality = settings.load(device), settings.wanted

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        rows = rows_of(table)
        while some := dict(islice(rows, self._codec.transforms.batch)):
            pictures = {n: task.picture.samples for n, task in some.items() if _has_latents(task.picture)}
            with suppress(CodecError, MemoryError), hushed():
                found = modes.analyse_batch(self._codec, list(pictures.values()), self._quality)
                some |= {n: some[n]._replace(latents=one) for n, one in zip(pictures, found, strict=True)}
            yield table_of(some.items())


def _has_latents(picture: ImageContent | None) -> bool:
    return picture is not None and picture.samples.dtype == np.uint8


class Finish:
    """Tasks -> outcomes: entropy codes, writes, and checks what it has written where it is to remove the source."""

    def __init__(self, settings: Settings) -> None:
        self._codec, self._settings = settings.load(), settings

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for number, task in rows_of(table):
            yield table_of([(number, self._outcome(task))])

    def _outcome(self, task: Task) -> Outcome:
        if task.picture is None:
            return alone(task.job, self._settings)
        with hushed():
            return JobRunner(self._compress, {"task": task}, self._settings.how, is_remote=True)(task.job)

    def _compress(self, job: Job, task: Task) -> dict[str, Any]:
        """compress_job, but that most of it has been done."""
        options, resources = self._settings.options, self._settings.resources

        def make(source: Source, choose_target: ChooseTarget) -> Output:
            code = self._coder(task)
            made = encode_image(
                source, choose_target, code, options["model"], options["only_images"], job.whole_name, resources
            )
            return made or store_file(source, choose_target)

        return convert_file(job.path, job.folder, make, options["remove"], job.overwrite, adopt=True)

    def _coder(self, task: Task) -> Callable[[Source], bytes]:
        wanted, options, resources = self._settings.wanted, self._settings.options, self._settings.resources
        picture, strip, effort = task.picture, options["strip"], options["effort"]
        assert picture is not None

        def code(source: Source) -> bytes:
            if _look(source) != task.seen:  # it has changed since it was read
                return encode_source(source, wanted, options["model"], strip, resources, effort)
            source.left_out += picture.left_out
            metadata = None if strip else picture.metadata
            if task.latents is None:
                data = modes.encode(self._codec, picture.samples, wanted, metadata, None, effort)
            else:
                assert not isinstance(wanted, Target)
                data = modes.encode_latents(self._codec, picture.samples, task.latents, wanted, metadata)
            return data

        return code


def alone(job: Job, settings: Settings) -> Outcome:
    """A job from its start to its end, as the folder mode does it."""
    with hushed():
        return JobRunner(compress_job, settings.options, settings.how, is_remote=True)(job)
