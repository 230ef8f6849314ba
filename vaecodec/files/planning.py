"""Name the output that a file would get, without writing anything."""

from __future__ import annotations

import os

from vaecodec.atomic import check_target
from vaecodec.container import stored
from vaecodec.errors import SkippedError
from vaecodec.files.outputs import compressed_name, decompressed_name, restored_name
from vaecodec.files.sources import Source
from vaecodec.images.frames import describe_frames
from vaecodec.images.inspection import is_image


def planned_output(
    command: str,
    src: str,
    dst: str | None,
    overwrite: bool = False,
    whole_name: bool = False,
    only_images: bool = False,
    frame: int | None = None,
) -> str:
    """Return the path that compress or decompress would write; `dst` None is the folder of `src`.

    Raises SkippedError for a file that would be skipped, and OSError or CodecError where the output could not be
    written.
    """
    with Source(src) as source:
        if command == "compress":
            codes = is_image(source.rewind(), source.name)
            if only_images and not codes:
                raise SkippedError(f"{src}: not an image")
            codes = codes and (frame is not None or not describe_frames(source.rewind()))
            name = compressed_name(src, is_image=codes and not whole_name)
        elif stored.is_stored(source.head()):
            name = restored_name(src, stored.Reader(source.rewind()).about)
        else:
            name = decompressed_name(src)
    if dst is None:
        dst = os.path.join(os.path.dirname(src), os.path.basename(name))
    elif os.path.isdir(dst) or dst.endswith(os.sep):
        dst = os.path.join(dst, os.path.basename(name))
    if os.path.isdir(os.path.dirname(dst) or os.curdir):  # a folder that the run would make holds nothing
        check_target(src, dst, overwrite)
    return dst
