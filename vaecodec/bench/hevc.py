"""HEVC intra: one 4:4:4 frame by x265 through PyAV <-> a bare HEVC stream."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from vaecodec.errors import CodecError

PRESET = "slow"
# Full-range BT.601, as BPG's; libswscale's own conversion would cost up to half a dB at high rates.
TO_RGB = np.array([[1, 0, 1.402], [1, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587], [1, 1.772, 0]])
TO_YCC = np.linalg.inv(TO_RGB)
CENTRE = np.array([0, 128, 128])


def to_planes(pixels: np.ndarray) -> np.ndarray:
    """u8[H, W, 3] RGB -> u8[H, W, 3] YCbCr."""
    return np.clip(np.rint(pixels @ TO_YCC.T + CENTRE), 0, 255).astype(np.uint8)


def from_planes(planes: np.ndarray) -> np.ndarray:
    """u8[H, W, 3] YCbCr -> u8[H, W, 3] RGB; the inverse of to_planes, but for rounding."""
    return np.clip(np.rint((planes - CENTRE) @ TO_RGB.T), 0, 255).astype(np.uint8)


def version() -> str:
    """PyAV's version; raises ImportError where it is missing or has no x265."""
    import av

    if "libx265" not in av.codecs_available:
        raise ImportError("this PyAV was built without libx265")
    return f"x265 in PyAV {av.__version__}"


def encode(pixels: np.ndarray, qp: int, threads: int) -> bytes:
    """u8[H, W, 3], -> HEVC stream; `qp` in 0..51; raises CodecError where a side is below 16."""
    import av

    height, width = pixels.shape[:2]
    if min(height, width) < 16:
        raise CodecError(f"{width} x {height} pixels, and x265 takes no side below 16")
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv444p"
    context.time_base = Fraction(1, 25)
    parameters = f"qp={qp}:keyint=1:aq-mode=0:info=0:repeat-headers=1:log-level=none:range=full:pools={threads}"
    context.options = {"preset": PRESET, "tune": "psnr", "x265-params": parameters}
    frame = av.VideoFrame(width, height, "yuv444p")
    planes = to_planes(pixels)
    for index, plane in enumerate(frame.planes):
        rows = np.zeros((height, plane.line_size), np.uint8)
        rows[:, :width] = planes[..., index]
        plane.update(rows.tobytes())
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def decode(data: bytes, threads: int) -> np.ndarray:
    """HEVC stream of one frame -> u8[H, W, 3]; the inverse of encode."""
    import av

    context = av.CodecContext.create("hevc", "r")
    context.thread_count = threads
    frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    if len(frames) != 1 or frames[0].format.name not in ("yuv444p", "yuvj444p"):
        raise CodecError(f"{len(frames)} frames, expected one of 8-bit 4:4:4")
    frame = frames[0]
    planes = [
        np.frombuffer(bytes(p), np.uint8).reshape(frame.height, p.line_size)[:, : frame.width] for p in frame.planes
    ]
    return from_planes(np.stack(planes, -1))
