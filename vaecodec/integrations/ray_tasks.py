"""What the processes of Ray do for integrations.ray: read images, analyse them, and finish files.

Each operator takes and yields tables of rows: the number of a job and a pickled Task or Outcome.
"""

from __future__ import annotations

import os
import pickle
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from vaecodec.arguments import NO_LIMITS, pillow_limits
from vaecodec.codec import Codec, load, modes
from vaecodec.codec.mode_decision import Target
from vaecodec.codec.tiles import Latents
from vaecodec.errors import CodecError, ModelError
from vaecodec.files import Source
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
from vaecodec.images import is_image
from vaecodec.images.strips import is_large
from vaecodec.progress import hushed

SCHEMA = pa.schema([("number", pa.int64()), ("content", pa.large_binary())])


class Settings(NamedTuple):
    """The settings of a run; `options` are those of compress_file, `model_id` is the model's id."""

    quality: float | Target
    options: dict[str, Any]
    model_id: str
    how: str  # for manifests

    def load(self, device: str = "cpu") -> Codec:
        """Load the codec; raises ModelError if the model of that name differs on this machine."""
        codec = load(self.options["model"], device, threads=1)
        if codec.model.id != self.model_id:
            raise ModelError(f"{platform.node()} has model {codec.model.id}, but the run started with {self.model_id}")
        return codec


class Task(NamedTuple):
    """A job with its image and latents, if they are made by now."""

    job: Job
    image: ImageContent | None = None
    version: tuple[int, int] = (0, 0)  # of the file that was read
    latents: list[Latents] | None = None


def table_of(rows: Iterable[tuple[int, Any]]) -> pa.Table:
    """Make a table of (number, object) rows; rows_of inverts it."""
    numbers, contents = zip(*((number, pickle.dumps(content, 5)) for number, content in rows), strict=True)
    return pa.table({"number": numbers, "content": contents}, SCHEMA)


def rows_of(table: pa.Table) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a table of table_of."""
    for number, content in zip(table["number"], table["content"], strict=True):
        yield number.as_py(), pickle.loads(content.as_buffer())


def read(table: pa.Table, settings: Settings) -> Iterator[pa.Table]:
    """Read the images of lists of jobs; a large image, which is read in strips, is left to Finish."""
    for _, jobs in rows_of(table):
        for number, job in jobs:
            task, limits = Task(job), settings.options["limits"] or NO_LIMITS
            with suppress(Exception), hushed(), Source(job.path) as source, pillow_limits(limits):
                if is_image(source.rewind(), source.name) and not _is_large(source):
                    task = Task(job, read_source_image(source), _version(source))
            yield table_of([(number, task)])


def _is_large(source: Source) -> bool:
    from PIL import Image

    with Image.open(source.rewind()) as image:
        return is_large(image.height, image.width)


def _version(source: Source) -> tuple[int, int]:
    stat = os.fstat(source.file.fileno())
    return stat.st_size, stat.st_mtime_ns


class Analyse:
    """Add latents to tasks, for several images at once if that is faster."""

    def __init__(self, settings: Settings, device: str) -> None:
        assert not isinstance(settings.quality, Target)
        self._codec, self._quality, self._tune = settings.load(device), settings.quality, settings.options["tune"]

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        rows = rows_of(table)
        while tasks := dict(islice(rows, self._codec.transforms.batch)):
            images = {n: task.image.samples for n, task in tasks.items() if task.image is not None}
            with suppress(CodecError, MemoryError), hushed():
                latents = modes.analyse_batch(self._codec, list(images.values()), self._quality, self._tune)
                tasks |= {n: tasks[n]._replace(latents=tiles) for n, tiles in zip(images, latents, strict=True)}
            yield table_of(tasks.items())


class Finish:
    """Entropy code and write the outputs of tasks, and verify those whose sources are to be removed."""

    def __init__(self, settings: Settings) -> None:
        self._codec, self._settings = settings.load(), settings

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for number, task in rows_of(table):
            if task.image is None:
                outcome = run_alone(task.job, self._settings)
            else:
                with hushed():
                    run_job = JobRunner(self._compress, {"task": task}, self._settings.how, is_remote=True)
                    outcome = run_job(task.job)
            yield table_of([(number, outcome)])

    def _compress(self, job: Job, task: Task) -> dict[str, Any]:
        """Do the rest of what compress_job does."""
        options, encode = self._settings.options, partial(self._encode, task=task)

        def make_output(source: Source, choose_target: ChooseTarget) -> Output:
            arguments = options["model"], options["only_images"], job.whole_name, Resources(options["limits"], 1)
            return encode_image(source, choose_target, encode, *arguments) or store_file(source, choose_target)

        return convert_file(job.path, job.folder, make_output, options["remove"], job.overwrite, adopt=True)

    def _encode(self, source: Source, task: Task) -> bytes:
        quality, options = self._settings.quality, self._settings.options
        image, strip, effort, tune = task.image, options["strip"], options["effort"], options["tune"]
        assert image is not None
        if _version(source) != task.version:  # the file has changed since it was read
            how = options["model"], strip, Resources(options["limits"], 1), effort
            return encode_source(source, quality, *how, tune=tune)
        source.left_out += image.left_out
        metadata = None if strip else image.metadata
        if task.latents is None:
            return modes.encode(self._codec, image.samples, quality, metadata, None, effort, tune=tune)
        assert not isinstance(quality, Target)
        return modes.encode_latents(self._codec, image.samples, task.latents, quality, metadata, tune)


def run_alone(job: Job, settings: Settings) -> Outcome:
    """Compress the file of a job as `vaecodec compress -r` does."""
    with hushed():
        return JobRunner(compress_job, settings.options, settings.how, is_remote=True)(job)
