"""The .vae format in Pillow: `import vaecodec.integrations.pillow`, then Image.open and Image.save know it.

Image.open  --read_preamble--> mode, size, info      .load() or .thumbnail() --modes.decode_strips--> pixels
Image.save  --read_image--> samples, metadata     --modes.encode--> bytes
"""

from __future__ import annotations

import warnings
from typing import IO, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from vaecodec.container.chunks import MAGIC, SUFFIX, inflate_metadata
from vaecodec.container.image_file import FallbackHeader, Preamble, check_is_image, quality_of, read_preamble
from vaecodec.errors import CodecError, FormatError
from vaecodec.images.reading import EXIF_PREFIX, INCH, RESOLUTION

FORMAT, MIME = "VAE", "image/x-vaecodec"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by channels
REDUCTIONS = (16, 8, 4, 2)
KEPT = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp", "dpi": "dpi"}  # Pillow's names


def accept(prefix: bytes) -> bool:
    """Whether a file begins as .vae files do."""
    return prefix.startswith(MAGIC)


class VaeImageFile(ImageFile.ImageFile):
    """A picture in a .vae file; pixels are decoded when they are first asked for.

    `info` has icc_profile, exif, xmp and dpi as Pillow's own formats do, and the coding ("vae", "avif", "lossless")
    and quality (1..100) of the file.  Pillow has 16 bits only in grey: other pictures of 16 bits lose their low bytes,
    with a warning.  Errors are OSErrors, as everywhere in Pillow.
    """

    format = FORMAT
    format_description = "vaecodec image"

    def _open(self) -> None:
        assert self.fp is not None
        try:
            front = read_preamble(self.fp)  # type: ignore[arg-type]
            check_is_image(front.header)
        except FormatError as exc:
            raise UnidentifiedImageError(self._said(exc)) from exc
        head = front.header
        deep = front.depth == 16
        if deep and front.channels > 1:
            warnings.warn(self._said("16 bits a sample, of which Pillow gets the upper 8"), stacklevel=5)
        self._size = head.width, head.height
        self._mode = "I;16" if deep and front.channels == 1 else MODES[front.channels]
        self.info.update(self._metadata(front))
        if isinstance(head, FallbackHeader):
            self.info["coding"] = head.coding
        else:
            self.info.update(coding="vae", quality=round(quality_of(head.quality_index), 2))
        self._reduce = 1
        self.tile = [ImageFile._Tile("vae", (0, 0, *self.size), 0, self.mode)]

    def _metadata(self, front: Preamble) -> dict[str, Any]:
        """The metadata that a file has, under Pillow's names; what is damaged is left out, and said so."""
        found: dict[str, Any] = {}
        for name, deflated in front.metadata.items():
            try:
                found[KEPT[name]] = inflate_metadata(name, deflated)
            except FormatError as exc:
                warnings.warn(self._said(exc), stacklevel=6)
        if "exif" in found:
            found["exif"] = EXIF_PREFIX + found["exif"]
        if (packed := found.pop("dpi", None)) and len(packed) == RESOLUTION.size:
            found["dpi"] = tuple(round(value * INCH, 4) for value in RESOLUTION.unpack(packed))
        return found

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """A preview at 1/2 to 1/16 of the sides that still covers `size`, as of a JPEG; thumbnail asks for it."""
        if not self.tile or self._reduce > 1 or not size:
            return None
        width, height = self.size
        room = min(width // max(size[0], 1), height // max(size[1], 1))
        self._reduce = next((factor for factor in REDUCTIONS if factor <= room), 1)
        self._size = -(-width // self._reduce), -(-height // self._reduce)
        self.tile = [self.tile[0]._replace(extents=(0, 0, *self.size))]
        return self.mode, (0, 0, width / self._reduce, height / self._reduce)

    def load(self) -> Any:
        """Decodes the pixels, once; raises OSError on damage and where their model is not at hand."""
        if self.tile:
            data = self._read()
            self.load_prepare()
            try:
                self._decode(data)
            except CodecError as exc:
                raise OSError(self._said(exc)) from exc
            self.tile, self.readonly = [], 0
            self._done()
        return super().load()

    def load_seek(self, pos: int) -> None:
        """Says to Pillow that its decoders are not for this."""

    def verify(self) -> None:
        """Raises OSError where the file is not whole, by its checksums: without a model or pixels; ends its use."""
        from vaecodec.container.image_file import contents

        try:
            contents(self._read())
        except CodecError as exc:
            raise OSError(self._said(exc)) from exc
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
        """The pixels of a file, strip by strip."""
        from vaecodec.codec import modes

        # No limits: Pillow's own have been applied.
        _, strips = modes.decode_strips(data, None, self._reduce, limits=None)
        top = 0
        for strip in strips:
            if strip.itemsize == 2 and self.mode != "I;16":
                strip = (strip >> 8).astype("uint8")
            self.im.paste(Image.fromarray(strip).im, (0, top, self.width, top + len(strip)))
            top += len(strip)

    def _said(self, what: object) -> str:
        name = self.filename if isinstance(self.filename, str) else ""
        return f"{name}: {what}" if name else str(what)


def save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """What Image.save does for .vae files.

    Options: `quality` 1..100 (50), `model` a shipped one or a .vcm file ("small"), `threads`; `icc_profile`, `exif`
    (bytes or Image.Exif), `xmp` and `dpi`, each that of image.info where not given, and none where None or empty.
    The picture is turned upright as its EXIF says.  Raises OSError on a mode that cannot be kept, ValueError on a
    quality outside its range.
    """
    from vaecodec.codec import modes
    from vaecodec.codec.codec import load
    from vaecodec.images.reading import COLOUR_MODES, GREY_16_MODES, GREY_MODES, read_image

    if image.mode not in (*GREY_MODES, *COLOUR_MODES, *GREY_16_MODES):
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}")
    options: dict[str, Any] = image.encoderinfo
    # A copy of the pixels as they are now: the image's file may say something else by now.
    copy = image.copy()
    for name in KEPT.values():
        if name in options:
            copy.info[name] = options[name]
        if not copy.info.get(name):
            copy.info.pop(name, None)
    if isinstance(copy.info.get("xmp"), str):
        copy.info["xmp"] = copy.info["xmp"].encode()
    if isinstance(copy.info.get("exif"), Image.Exif):
        copy.info["exif"] = copy.info["exif"].tobytes()
    try:
        samples, kept = read_image(copy, filename if isinstance(filename, str) and filename else None)
        codec = load(options.get("model", "small"), threads=options.get("threads"))
        file.write(modes.encode(codec, samples, options.get("quality", 50), kept))
    except CodecError as exc:
        raise OSError(f"cannot write image as {FORMAT}: {exc}") from exc


def save_all(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """As save, of what has one frame; raises OSError on more, as a .vae file holds one picture."""
    frames = [frame for one in (image, *image.encoderinfo.get("append_images", ())) for frame in _frames(one)]
    if len(frames) > 1:
        raise OSError(
            f"cannot write {len(frames)} frames as {FORMAT}: a .vae file holds one picture; save each to its own file"
        )
    save(image, file, filename)


def _frames(image: Image.Image) -> range:
    return range(getattr(image, "n_frames", 1))


Image.register_open(FORMAT, VaeImageFile, accept)
Image.register_save(FORMAT, save)
Image.register_save_all(FORMAT, save_all)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, MIME)
