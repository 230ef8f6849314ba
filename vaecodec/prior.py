"""Predict and code the coefficients of a tile from coarse to fine, in exact integers, for encoders and decoders alike.

    lowest coefficients, five parts --> octave 4 --> low-pass image, twice as large --> octave 3 --> ... --> octave 0

A part is a set of coefficients that are coded together: one of the five of the lowest coefficients, or half an octave.
A tile is coded by itself, and its edges are mirrored.  Tensors of a model file:

    prior/context/<octave>/...   networks of an octave               levels/bias           bias of their features
    prior/lowest/<part>/...      networks of the lowest coefficients levels/lowest, start  bias of their features
    levels/inverse_gain          steps of each subband, in steps of the low-pass image
    companding, centroids        how networks see values, and the values that symbols stand for

Tensors of levels/ have a row for every eighth quality index.

A payload is a stack of symbols with a CRC-32 (docs/reference/format.md, "Tile payload"): parts are pushed from the last
to the first, and popped from the first to the last.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vaecodec.config import INDICES_PER_LEVEL, LEVELS, Config
from vaecodec.entropy import coding, scale_offsets
from vaecodec.entropy.coding import Models, Part
from vaecodec.entropy.scale_offsets import Offsets, shifted_indices
from vaecodec.errors import FormatError, ModelError
from vaecodec.native import prior as kernels
from vaecodec.native.library import reused
from vaecodec.native.networks import tape_lines
from vaecodec.native.reference.prior import octave_order
from vaecodec.native.symbols import ALL_ALIKE, CENTROIDS, symbol_values
from vaecodec.native.wavelet import LOW_MAX, VALUE_MAX, context_low
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.networks import Arrays, read_tensor, scaled_gains, tilt_logarithms
from vaecodec.transforms.wavelet import SUBBANDS, Half, Values

OCTAVES = 4  # the coarsest octave of a tile: it splits the low-pass image of the transforms
LOWEST_PARTS = kernels.LOWEST_PARTS
PARTS = LOWEST_PARTS + 2 * (OCTAVES + 1)
# Parts of each octave, coarse to fine, the lowest coefficients first.
PARTS_BY_OCTAVE = [slice(0, LOWEST_PARTS), *(slice(part, part + 2) for part in range(LOWEST_PARTS, PARTS, 2))]

# Bounds of tensors: with them no sum of the core leaves 32 bits.
LEVEL_BIAS_MAX, START_MAX, GAIN_MAX = 1 << 20, 1 << 16, 1 << 13
COMPANDED_MAX, ACTIVATION_MAX = 1 << 16, 1023
PREFIX = "prior/"


class Distributions(NamedTuple):
    """Table indices u8[n] and means i32[n], unit 2**-6 quantisation steps, of the coefficients of a part."""

    indices: np.ndarray
    loc: np.ndarray


class OctavePass(NamedTuple):
    """What gradients need of the networks of an octave."""

    before: kernels.Before
    tapes: tuple[np.ndarray | None, np.ndarray | None]  # of the blocks of either half
    parts: tuple[tuple[np.ndarray, Half], tuple[np.ndarray, Half]]  # table indices and values of either half


class Record:
    """Keeps what gradients need of a pass through the prior; another pass in the same thread overwrites it."""

    def __init__(self) -> None:
        self.octaves: list[OctavePass] = []
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []  # table indices u8[n] and values i32[n]
        self._memory: dict[tuple[int, int], np.ndarray] = {}

    def clear(self) -> None:
        """Forget the last pass, but for its memory."""
        self.octaves, self.parts = [], []

    def tape(self, octave: int, half: int, shape: tuple[int, ...]) -> np.ndarray:
        """The tape of a block of i16[h, w, features]."""
        lines = tape_lines(shape)
        memory = self._memory.get((octave, half))
        if memory is None or len(memory) < 64 * lines:
            memory = self._memory[octave, half] = reused(f"tape{octave}{half}", (64 * lines,), np.uint8)
        return memory


PartCoder = Generator[Distributions, np.ndarray, Values]  # yields distributions, is sent symbols i32[n], returns values


class Prior:
    """Networks of a model that choose frequency tables; raises ModelError if its tensors do not fit.

    `scales` is the number of tables for coefficients, of which table 0 is not coded.
    """

    def __init__(self, config: Config, arrays: Arrays, scales: int) -> None:
        self.config, self.channels, self.scales = config, config.channels, scales
        widths = [config.prior, *[config.coarser] * OCTAVES]
        self._ends = np.cumsum(widths)
        self._bias = level_tensor(arrays, "bias", int(self._ends[-1]), LEVEL_BIAS_MAX)
        self._lowest_bias = level_tensor(arrays, "lowest", (LOWEST_PARTS - 1) * config.hyper_width, LEVEL_BIAS_MAX)
        self._start = level_tensor(arrays, "start", 2 * self.channels, START_MAX)
        self._inverse_gain = level_tensor(arrays, "inverse_gain", SUBBANDS * (OCTAVES + 1) * self.channels, GAIN_MAX)
        if self._inverse_gain.min() < 1:
            raise ModelError("levels/inverse_gain is not above 0")
        self.centroids = np.ascontiguousarray(read_tensor(arrays, "centroids", np.int8, (scales, CENTROIDS)))
        self.companding = _read_companding(arrays)
        weights = {name[len(PREFIX) :]: array for name, array in arrays.items() if name.startswith(PREFIX)}
        for name, array in weights.items():
            if array.dtype != (np.int32 if name.endswith("/bias") else np.int16):
                raise ModelError(f"{PREFIX}{name} has type {array.dtype}")
        try:
            octaves = (kernels.load_octave(weights, octave, self.companding, scales) for octave in range(OCTAVES + 1))
            self.octaves = list(octaves)
            self.lowest = kernels.load_lowest(weights, self.companding, scales)
        except KeyError as exc:
            raise ModelError(f"the prior has no {PREFIX}{exc.args[0]}") from exc
        except ValueError as exc:
            raise ModelError(f"the prior's layers: {exc}") from exc
        shapes = [(layers.colours, *layers.enter.kernel.shape) for layers in self.octaves]
        shapes.append(self.lowest.parts[0].enter.kernel.shape)
        # All octaves but the coarsest see features that the next coarser one passed on.
        inputs = [14 * self.channels + kernels.PASSED] * OCTAVES + [14 * self.channels]
        expected = [(self.channels, *shape) for shape in zip(inputs, widths, strict=True)]
        if shapes != [*expected, (10 * self.channels, config.hyper_width)]:
            raise ModelError("the prior's layers have other widths than its configuration")

    def tilted(self, tilt: int) -> Prior:
        """This prior with steps of subbands that change by octave (networks.tilt_logarithms)."""
        mantissas, shifts = scaled_gains(tilt_logarithms(tilt), 0)
        mantissa, shift = (np.repeat(x, SUBBANDS * self.channels) for x in (mantissas, shifts))
        prior = copy.copy(self)
        gains = (self._inverse_gain * mantissa + (1 << shift >> 1)) >> shift
        prior._inverse_gain = np.clip(gains, 1, GAIN_MAX).astype(np.int32)
        return prior

    def bias(self, octave: int, level: int) -> np.ndarray:
        """i32[features]: bias of the features of an octave."""
        return self._bias[level, self._ends[octave] - self.octaves[octave].features : self._ends[octave]]

    def lowest_bias(self, level: int) -> np.ndarray:
        """i32[4 * hyper_width]: bias of each part of the lowest coefficients but the first."""
        return self._lowest_bias[level]

    def start(self, level: int) -> np.ndarray:
        """i32[2 C]: means, then table indices, of the first part of the lowest coefficients."""
        return self._start[level]

    def inverse_gain(self, octave: int, level: int) -> np.ndarray:
        """i32[3 C], unit 2**-10: quantisation step of each subband, in steps of the low-pass image."""
        width = SUBBANDS * self.channels
        return np.ascontiguousarray(self._inverse_gain[level, octave * width : (octave + 1) * width])


def level_of(quality_index: int) -> int:
    """The row of the level tensors at a quality index: the last one from the last anchor on."""
    return min(quality_index // INDICES_PER_LEVEL, LEVELS - 1)


def value_limit(part: int) -> int:
    """The bound of the values of a part: larger where they are no coefficients of the transforms."""
    return LOW_MAX if part < PARTS_BY_OCTAVE[1].stop else VALUE_MAX


def level_tensor(arrays: Arrays, name: str, width: int, limit: int) -> np.ndarray:
    """levels/`name` i32[LEVELS, width], within +-limit; raises ModelError."""
    array = np.ascontiguousarray(read_tensor(arrays, f"levels/{name}", np.int32, (LEVELS, width)))
    if array.min() < -limit or array.max() > limit:
        raise ModelError(f"levels/{name} is out of range")
    return array


def _read_companding(arrays: Arrays) -> np.ndarray:
    steps = arrays.get("companding")
    if steps is None or steps.dtype != np.int32 or steps.ndim != 1 or not 1 <= len(steps) <= ACTIVATION_MAX:
        raise ModelError(f"companding is not i32[n] with n in 1..{ACTIVATION_MAX}")
    if steps[0] < 1 or (np.diff(steps) <= 0).any() or steps[-1] > COMPANDED_MAX:
        raise ModelError(f"companding does not rise from 1 to at most {COMPANDED_MAX}")
    return kernels.companding_table(steps)


def code_coefficients(
    prior: Prior,
    cells: tuple[int, int],
    quality_index: int,
    threads: Threads = ONE_THREAD,
    record: Record | None = None,
) -> PartCoder:
    """Yield the distributions of each of the PARTS of a tile of (h, w) cells, and be sent its symbols i32[n].

    An encoder sends the symbols that it chooses, a decoder those that it decodes.  In order: five parts of the lowest
    coefficients, then both halves of octaves 4, 3, 2, 1 and 0.  A record is filled for gradients.
    """
    if record is not None:
        record.clear()
    level = level_of(quality_index)
    low = yield from _code_lowest(prior, (-(-cells[0] // 2), -(-cells[1] // 2)), level, record)
    parents: tuple[Half, Half] | None = None
    passed: np.ndarray | None = None
    halves: list[tuple[Half, Half]] = []
    for octave in range(OCTAVES, -1, -1):
        inverse_gain = prior.inverse_gain(octave, level)
        before = kernels.Before(low, parents, passed)
        parents, passed = yield from _code_octave(prior, octave, level, before, threads, record)
        if octave < OCTAVES:
            halves.insert(0, parents)
        if octave:
            shape = cells if octave == OCTAVES else None  # an odd side of the tile has one row less than two squares
            low = context_low(low, *parents, inverse_gain, shape)
        if octave == OCTAVES:
            tile_low = low
    return Values(halves, tile_low)


def _code_lowest(
    prior: Prior, size: tuple[int, int], level: int, record: Record | None
) -> Generator[Distributions, np.ndarray, np.ndarray]:
    """The values i32[C, h, w] of the lowest coefficients."""
    known = kernels.Lowest(prior.lowest, size, prior.lowest_bias(level), prior.start(level))
    for part in range(LOWEST_PARTS):
        known.put(part, (yield from _code_part(prior, *known.distribution(part), record, value_limit(part))))
    return known.planes()


def _code_octave(
    prior: Prior, octave: int, level: int, before: kernels.Before, threads: Threads, record: Record | None
) -> Generator[Distributions, np.ndarray, tuple[tuple[Half, Half], np.ndarray | None]]:
    """Both halves of an octave, and the channels that its networks pass on to the next."""
    layers, vector = prior.octaves[octave], prior.bias(octave, level)
    shape = before.low.shape[1:]
    cells = kernels.cells_of(shape)
    first = kernels.empty_first(layers, cells)
    tapes: tuple[np.ndarray | None, np.ndarray | None] = None, None
    if record is not None:
        tapes = record.tape(octave, 0, first.features.shape), record.tape(octave, 1, first.features.shape)
    threads.over_rows(cells[0], lambda rows: kernels.first_half(layers, vector, before, first, rows, tapes[0]))
    limit = value_limit(PARTS - 2 * octave - 1)
    first_values = yield from _code_part(prior, first.indices, first.loc, record, limit)
    second = kernels.empty_second(layers, cells)
    known = first.features, first_values
    threads.over_rows(cells[0], lambda rows: kernels.second_half(layers, shape, *known, second, rows, tapes[1]))
    second_values = yield from _code_part(prior, second.indices, second.loc, record, limit)
    if record is not None:
        parts = (first.indices, first_values), (second.indices, second_values)
        record.octaves.append(OctavePass(before, tapes, parts))
    return (first_values, second_values), second.passed


def _code_part(
    prior: Prior, indices: np.ndarray, loc: np.ndarray, record: Record | None, limit: int
) -> Generator[Distributions, np.ndarray, Half]:
    """The values of a part, within +-limit, in the shape of its indices."""
    distributions = Distributions(indices.ravel(), loc.ravel())
    symbols = yield distributions
    values = symbol_values(symbols, *distributions, prior.centroids, limit)
    if record is not None:
        record.parts.append((distributions.indices, values))
    return values.reshape(indices.shape)


Chooser = Callable[[int, Distributions], np.ndarray]  # number of a part and its distributions -> symbols i32[n]


class CodedTile(NamedTuple):
    """A tile's payload, the CRC-32 of its symbols, its parts, and the values that a decoder reconstructs."""

    payload: bytes
    crc: int
    parts: list[Part]
    values: Values


def encode_tile(
    prior: Prior,
    models: Models,
    cells: tuple[int, int],
    quality_index: int,
    choose: Chooser,
    threads: Threads = ONE_THREAD,
    by_band: bool = False,
) -> CodedTile:
    """Code a tile of (h, w) cells with the symbols that `choose` returns, as `code_tile` does."""
    parts, values = choose_symbols(prior, cells, quality_index, choose, threads)
    return code_tile(prior, models, parts, values, threads, by_band)


def code_tile(
    prior: Prior,
    models: Models,
    parts: list[Part],
    values: Values,
    threads: Threads = ONE_THREAD,
    by_band: bool = False,
) -> CodedTile:
    """Code what `choose_symbols` returned; with scale offsets by band, if they pay.

    Raises CodecError if a symbol cannot be coded.
    """
    patterns = band_patterns(prior.channels, by_band)
    symbols, indices = zip(*parts, strict=True)
    offsets = scale_offsets.choose_scale_offsets(parts, patterns, models.tables, prior.scales, threads)
    shifted, tables = zip(
        *shifted_indices(indices, offsets or [Offsets()] * PARTS, patterns, prior.scales), strict=True
    )
    runs_of, crcs = coding.sort_parts([*zip(symbols, shifted, strict=True)], threads)
    coder = coding.writer()
    for part in range(PARTS - 1, -1, -1):
        inliers = coding.push_outliers(coder, symbols[part], shifted[part], models)
        coding.push(coder, inliers, shifted[part], models, tables[part], runs_of.pop(part))
    scale_offsets.push_scale_offsets(coder, offsets, patterns)
    return CodedTile(coding.words(coder), tile_checksum(crcs), parts, values)


@lru_cache(maxsize=32)
def band_patterns(channels: int, by_band: bool) -> list[np.ndarray]:
    """The bands of the coefficients of each part, not to be changed: of the lowest, and without `by_band`, all alike.

    The bands of half an octave are its subbands, with those of the first channel apart from the others.
    """
    if not by_band:
        return [ALL_ALIKE] * PARTS
    planes = [np.divmod(numbers % (SUBBANDS * channels), channels) for numbers in octave_order(channels)]
    halves = [subband * min(2, channels) + (channel > 0) for subband, channel in planes]
    return [ALL_ALIKE] * LOWEST_PARTS + [half.astype(np.uint8) for half in halves] * (OCTAVES + 1)


def choose_symbols(
    prior: Prior,
    cells: tuple[int, int],
    quality_index: int,
    choose: Chooser,
    threads: Threads = ONE_THREAD,
    record: Record | None = None,
) -> tuple[list[Part], Values]:
    """Parts of a tile and their values, without coding them; a record is filled for gradients."""
    part_coder, parts = code_coefficients(prior, cells, quality_index, threads, record), list[Part]()
    distributions = next(part_coder)
    while True:
        symbols = choose(len(parts), distributions)
        parts.append((symbols, distributions.indices))
        try:
            distributions = part_coder.send(symbols)
        except StopIteration as end:
            return parts, end.value


def decode_tile(
    prior: Prior,
    models: Models,
    cells: tuple[int, int],
    quality_index: int,
    payload: bytes,
    crc: int,
    threads: Threads = ONE_THREAD,
    observe: Callable[[np.ndarray], None] | None = None,
    by_band: bool = False,
) -> Values:
    """Values of a tile; raises FormatError if its symbols are damaged.  `observe` gets the symbols of each part."""
    part_coder = code_coefficients(prior, cells, quality_index, threads)
    coder, crcs, patterns = coding.reader(payload), list[int](), band_patterns(prior.channels, by_band)
    distributions = next(part_coder)
    for offsets, pattern in zip(scale_offsets.pop_scale_offsets(coder, patterns), patterns, strict=True):
        [(indices, tables)] = shifted_indices([distributions.indices], [offsets], [pattern], prior.scales)
        runs = coding.by_table(indices)
        symbols = coding.pop(coder, indices, models, tables, runs)
        coding.pop_outliers(coder, symbols, indices, models)
        crcs.append(coding.part_checksum(symbols, indices, runs))
        if observe is not None:
            observe(symbols)
        try:
            distributions = part_coder.send(symbols)
        except StopIteration as end:
            values = end.value
    if not coder.is_empty():
        raise FormatError("words are left over after the last symbol")
    if tile_checksum(crcs) != crc:
        raise FormatError("the CRC of its symbols does not match")
    return values


def information(prior: Prior, models: Models, parts: list[Part]) -> float:
    """Information content of the symbols of a tile under the model, in bits."""
    tables, patterns, (symbols, indices) = models.tables, band_patterns(prior.channels, True), zip(*parts, strict=True)
    offsets = scale_offsets.choose_scale_offsets(parts, patterns, tables, prior.scales)
    bits = sum(coding.outlier_bits(tables, *part) for part in parts)
    bits += scale_offsets.scale_offset_bits(offsets, patterns)
    shifted = shifted_indices(indices, offsets or [Offsets()] * PARTS, patterns, prior.scales)
    return bits + sum(tables.bits(part, of[table]) for part, (table, of) in zip(symbols, shifted, strict=True))


def tile_checksum(part_checksums: Sequence[int]) -> int:
    """CRC-32 of a tile: that of the CRCs of its parts, each as u32."""
    return zlib.crc32(np.array(part_checksums, "<u4").tobytes())
