"""Add the .vae format to Pillow: import this module, and Image.open and Image.save read and write it.

Image.open  --read_preamble--> mode, size, info   --load() or thumbnail(): modes.decode_strips--> pixels
Image.save  --read_image--> samples, metadata     --modes.encode--> bytes
"""

from __future__ import annotations

import warnings
from typing import IO, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from vaecodec.arguments import DEFAULT_MODEL, TARGETS, check_effort, check_model, check_threads, check_tune, wrong_type
from vaecodec.container import MAGIC, SUFFIX, FallbackHeader, inflate_metadata
from vaecodec.container.image_file import Preamble, check_is_image, read_preamble, shown_quality_of
from vaecodec.errors import CodecError, FormatError
from vaecodec.images import EXIF_PREFIX, INCH, RESOLUTION

FORMAT, MIME = "VAE", "image/x-vaecodec"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by channels
REDUCTIONS = (16, 8, 4, 2)
INFO_KEYS = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp", "dpi": "dpi"}  # Pillow's names

# Options of save: those of vaecodec.encode, and metadata; save_all checks `append_images`.
OPTIONS: tuple[str, ...] = ("quality", *TARGETS, "lossless", "max_error", "effort", "tune", "model", "threads")
OPTIONS += (*INFO_KEYS.values(), "append_images")


def accept(prefix: bytes) -> bool:
    """Tell whether a file starts like a .vae file."""
    return prefix.startswith(MAGIC)


class VaeImageFile(ImageFile.ImageFile):
    """The image in a .vae file; pixels are decoded on first use.

    `info` has icc_profile, exif, xmp and dpi as in Pillow's own formats, and the coding ("vae", "avif", "lossless",
    "near-lossless") and quality (1..100) of the file.  Pillow supports more than 8 bits per sample only in grey: other
    images keep the upper 8 bits, with a warning.  Errors are OSErrors, as everywhere in Pillow.
    """

    format = FORMAT
    format_description = "vaecodec image"

    def _open(self) -> None:
        assert self.fp is not None
        try:
            preamble = read_preamble(self.fp)  # type: ignore[arg-type]
            check_is_image(preamble.header)
        except FormatError as exc:
            raise UnidentifiedImageError(self._message(exc)) from exc
        header = preamble.header
        is_16_bit = preamble.depth > 8
        if is_16_bit and preamble.channels > 1:
            warnings.warn(self._message("16 bits per sample are reduced to the upper 8 for Pillow"), stacklevel=5)
        self._size = header.width, header.height
        self._mode = "I;16" if is_16_bit and preamble.channels == 1 else MODES[preamble.channels]
        self.info.update(self._metadata(preamble))
        if isinstance(header, FallbackHeader):
            self.info["coding"] = header.fidelity
        else:
            self.info.update(coding="vae", quality=shown_quality_of(header.quality_index, header.tilt))
        self._reduce = 1
        self.tile = [ImageFile._Tile("vae", (0, 0, *self.size), 0, self.mode)]

    def _metadata(self, preamble: Preamble) -> dict[str, Any]:
        """Return the metadata under Pillow's names; warn of damaged metadata and leave it out."""
        metadata: dict[str, Any] = {}
        for name, deflated in preamble.metadata.items():
            try:
                metadata[INFO_KEYS[name]] = inflate_metadata(name, deflated)
            except FormatError as exc:
                warnings.warn(self._message(exc), stacklevel=6)
        if "exif" in metadata:
            metadata["exif"] = EXIF_PREFIX + metadata["exif"]
        if (resolution := metadata.pop("dpi", None)) and len(resolution) == RESOLUTION.size:
            metadata["dpi"] = tuple(round(value * INCH, 4) for value in RESOLUTION.unpack(resolution))
        return metadata

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Choose a preview at 1/2 to 1/16 of the sides that covers `size`; Image.thumbnail calls this."""
        if not self.tile or self._reduce > 1 or not size:
            return None
        width, height = self.size
        ratio = min(width // max(size[0], 1), height // max(size[1], 1))
        self._reduce = next((factor for factor in REDUCTIONS if factor <= ratio), 1)
        self._size = -(-width // self._reduce), -(-height // self._reduce)
        self.tile = [self.tile[0]._replace(extents=(0, 0, *self.size))]
        return self.mode, (0, 0, width / self._reduce, height / self._reduce)

    def load(self) -> Any:
        """Decode the pixels, once; raises OSError on damage and if the model is not metadata."""
        if self.tile:
            data = self._read()
            self.load_prepare()
            try:
                self._decode(data)
            except CodecError as exc:
                raise OSError(self._message(exc)) from exc
            self.tile, self.readonly = [], 0
            self._done()
        return super().load()

    def load_seek(self, pos: int) -> None:
        """Tell Pillow not to use its own decoders, by being overridden."""

    def verify(self) -> None:
        """Check the checksums of the file without a model, and close it; raises OSError on damage."""
        from vaecodec.container.image_file import contents

        try:
            contents(self._read())
        except CodecError as exc:
            raise OSError(self._message(exc)) from exc
        self._done()

    def _done(self) -> None:
        if self._exclusive_fp and self.fp is not None:
            self.fp.close()
        self.fp = None

    def _read(self) -> bytes:
        if self.fp is None:
            raise ValueError("Operation on closed image")
        self.fp.seek(0)
        return self.fp.read()

    def _decode(self, data: bytes) -> None:
        """Decode the file strip by strip into the image."""
        from vaecodec.codec import modes

        # Pillow has applied its own limits.
        _, strips = modes.decode_strips(data, None, self._reduce, limits=None)
        top = 0
        for strip in strips:
            if strip.itemsize == 2 and self.mode != "I;16":
                strip = (strip >> 8).astype("uint8")
            self.im.paste(Image.fromarray(strip).im, (0, top, self.width, top + len(strip)))
            top += len(strip)

    def _message(self, text: object) -> str:
        name = self.filename if isinstance(self.filename, str) else ""
        return f"{name}: {text}" if name else str(text)


def save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Write an image as a .vae file, for Image.save.

    Options: `quality`, `target_size`, `target_bpp`, `target_psnr`, `lossless`, `max_error`, `effort`, `tune`, `model`
    and `threads` as of vaecodec.encode; `icc_profile`, `exif` (bytes or Image.Exif), `xmp` and `dpi`, which default to
    those of image.info and are left out if None or empty.  The EXIF orientation is applied.

    Raises OSError on a mode that is not supported, TypeError or ValueError on an option that is unknown or wrong.
    """
    from vaecodec.codec import exact, load, modes
    from vaecodec.codec.mode_decision import Target
    from vaecodec.images.colours import GREY_16_MODES
    from vaecodec.images.reading import COLOUR_MODES, GREY_MODES, read_image

    options: dict[str, Any] = image.encoderinfo
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise TypeError(f"{FORMAT} images have no option {unknown[0]} to save with; there are {', '.join(OPTIONS)}")
    size, bpp, psnr = (options.get(name) for name in TARGETS)
    lossless, max_error = options.get("lossless", False), options.get("max_error")
    goal = Target.from_arguments(size, bpp, psnr, options.get("quality"), lossless, max_error)
    effort, threads = check_effort(options.get("effort", 1)), check_threads(options.get("threads"))
    tune = check_tune(options.get("tune"), psnr)
    model = check_model(options.get("model", DEFAULT_MODEL))
    if image.mode not in (*GREY_MODES, *COLOUR_MODES, *GREY_16_MODES):
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}")
    # A copy, so that the pixels are those in memory, not those of the image's file.
    copy = image.copy()
    copy.info = _info_to_save(copy.info, options)
    try:
        samples, metadata = read_image(copy, filename if isinstance(filename, str) and filename else None)
        if isinstance(goal, Target) and goal.is_bound:
            file.write(exact.encode(samples, int(goal.value), metadata, threads, effort=effort))
            return
        file.write(modes.encode(load(model, threads=threads), samples, goal, metadata, effort=effort, tune=tune))
    except CodecError as exc:
        raise OSError(f"cannot write image as {FORMAT}: {exc}") from exc


def _info_to_save(info: dict[Any, Any], options: dict[str, Any]) -> dict[Any, Any]:
    """Return the info of an image with the metadata to save; raises TypeError on metadata of another type."""
    info = info.copy()
    for name in INFO_KEYS.values():
        value = options.get(name, info.get(name))
        if isinstance(value, Image.Exif):
            value = value.tobytes()
        if name == "xmp" and isinstance(value, str):
            value = value.encode()
        if name in options and value and name != "dpi" and not isinstance(value, bytes):
            wrong_type(name, value, "bytes")
        info[name] = value
        if not value:
            del info[name]
    return info


def save_all(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Write an image with one frame, for Image.save; raises OSError on more frames."""
    images = (image, *image.encoderinfo.get("append_images", ()))
    frames = sum(getattr(image, "n_frames", 1) for image in images)
    if frames > 1:
        raise OSError(
            f"cannot write {frames} frames as {FORMAT}: a .vae file holds one image; save each frame to its own file"
        )
    save(image, file, filename)


Image.register_open(FORMAT, VaeImageFile, accept)
Image.register_save(FORMAT, save)
Image.register_save_all(FORMAT, save_all)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, MIME)
