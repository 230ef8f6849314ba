"""Test that images of every kind keep their kind, and that each is coded in the mode with the lowest cost."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

import vaecodec
from reference import reference_decoder
from support.images import synthetic_image
from support.paths import GOLDEN
from vaecodec import container
from vaecodec.arguments import Limits
from vaecodec.codec import fallback, mode_decision, modes
from vaecodec.container import image_file
from vaecodec.errors import CodecError, FormatError, LimitError
from vaecodec.images.channels import alpha_channel, clear_transparent, count_channels, join_alpha
from vaecodec.images.colours import fill_transparent, split_alpha

KINDS = ["grey", "grey + alpha", "RGB", "RGBA"]


def sample(channels, height=100, width=150, dtype=np.uint8):
    """A photograph-like image; alpha has a hole, a soft edge and an opaque part."""
    colour = synthetic_image(height, width)[..., : 1 if channels < 3 else 3]
    if channels in (2, 4):
        x = np.arange(width)[None] - width / 3
        alpha = np.broadcast_to(np.clip(8 * x, 0, 255), (height, width)).astype(np.uint8)
        colour = np.dstack([colour, alpha])
    colour = colour.astype(dtype) * (257 if dtype == np.uint16 else 1)
    return colour[..., 0] if channels == 1 else colour


def screenshot(height=200, width=300):
    """Text and flat rectangles."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 10, width // 2, 40), "navy")
    for row in range(50, height - 12, 12):
        draw.text((10, row), "The quick brown fox jumps over the lazy dog " * 2, "black")
    return np.asarray(image)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coding_of(data):
    return image_file.info(data)["coding"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("quality", [20, 90])
def test_images_keep_their_kind(small, channels, quality):
    samples = sample(channels)
    data = modes.encode(small, samples, quality)
    decoded = modes.decode(data)
    assert coding_of(data) == "vae" and image_file.info(data)["channels"] == channels
    assert decoded.shape == samples.shape and decoded.dtype == np.uint8
    visible = np.ones(samples.shape[:2], bool)
    if channels in (2, 4):
        np.testing.assert_array_equal(decoded[..., -1], samples[..., -1])
        visible = samples[..., -1] > 0
        assert not decoded[~visible].any()
    error = decoded[visible].astype(float) - samples[visible]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > (28 if quality == 20 else 34)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 2), (20, 30)])
def test_lossless_is_lossless(channels, dtype, shape):
    rng = np.random.default_rng(channels)
    samples = rng.integers(0, np.iinfo(dtype).max + 1, (*shape, channels)).astype(dtype)
    samples = samples[..., 0] if channels == 1 else samples
    data = fallback.encode_lossless(samples)
    np.testing.assert_array_equal(fallback.decode_lossless(data, shape, channels, 8 * samples.itemsize), samples)
    for size in ((shape[0] + 1, shape[1]), shape[::-1] if shape[0] != shape[1] else (2, 1)):
        with pytest.raises(FormatError):
            fallback.decode_lossless(data, size, channels, 8 * samples.itemsize)
    with pytest.raises(FormatError):
        fallback.decode_lossless(data, shape, channels, 24 - 8 * samples.itemsize)


def test_images_too_wide_for_webp_are_stored_as_png():
    wide = sample(4, 3, fallback.WEBP_SIDE + 1)
    data = fallback.encode_lossless(wide)
    assert data[4:].startswith(fallback.PNG_MAGIC) and fallback.encode_lossless(wide[:, 1:])[4:].startswith(b"RIFF")
    np.testing.assert_array_equal(fallback.decode_lossless(data, wide.shape[:2], 4, 8), wide)


def test_damage_of_any_byte_of_a_lossless_payload_is_detected(small):
    samples = sample(4, 12, 17)
    payload = fallback.encode_lossless(samples)
    for data in (payload, fallback.encode_lossless(samples.astype(np.uint16) * 200)):
        depth = 8 if data is payload else 16
        expected = fallback.decode_lossless(data, (12, 17), 4, depth)
        for position in range(len(data)):
            for mask in (1, 128):
                damaged = bytearray(data)
                damaged[position] ^= mask
                try:  # bytes that no pixel depends on may change; the chunks of a file have CRCs too
                    np.testing.assert_array_equal(
                        fallback.decode_lossless(bytes(damaged), (12, 17), 4, depth), expected
                    )
                except FormatError:
                    continue
        for end in range(4 + 12):
            with pytest.raises(FormatError):
                fallback.decode_lossless(data[:end], (12, 17), 4, depth)


def test_lossless_payloads_of_other_formats_are_refused():
    samples = sample(3, 12, 17)
    crc = fallback.encode_lossless(samples)[:4]
    for format in ("JPEG", "GIF", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(samples).save(file, format)
        with pytest.raises(FormatError):
            fallback.decode_lossless(crc + file.getvalue(), (12, 17), 3, 8)
    bomb = io.BytesIO()
    Image.new("1", (20000, 20000)).save(bomb, "PNG")
    with pytest.raises(FormatError, match="size"):
        fallback.decode_lossless(crc + bomb.getvalue(), (12, 17), 3, 8)


def test_screenshots_are_lossless_and_photographs_are_not(small):
    for quality in (10, 50, 90):
        data = modes.encode(small, screenshot(), quality)
        assert coding_of(data) == "lossless"
        np.testing.assert_array_equal(modes.decode(data), screenshot())
        assert coding_of(modes.encode(small, synthetic_image(200, 300), quality)) == "vae"


@pytest.mark.parametrize("quality", [1, 30, 70, 100])
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (40, 60), (130, 70)])
def test_no_file_is_larger_than_its_lossless_version(small, shape, quality):
    flat = np.full((*shape, 3), 77, np.uint8)
    steps = np.arange(shape[0] * shape[1] * 3).reshape(*shape, 3).astype(np.uint8)
    dither = np.asarray(Image.fromarray(synthetic_image(*shape)).convert("1").convert("L"))
    for samples in (flat, steps, dither, synthetic_image(*shape), noise(*shape), screenshot()[: shape[0], : shape[1]]):
        lossless = fallback.pack_lossless(samples, None)
        assert len(modes.encode(small, samples, quality)) <= len(lossless)


def drawing(height=240, width=320):
    """Soft discs on a gradient, which lossless coding handles badly and AVIF well."""
    y, x = np.mgrid[:height, :width]
    colour = np.dstack([x // 2, y // 2, (x + y) // 4]).astype(float)
    for n in range(9):
        radius = np.hypot(x - 40 * n, y - 25 * n)
        colour += np.clip(30 - radius, 0, 1)[..., None] * (np.array([70 * n, 40 * n, 90 * n]) % 255 - colour)
    return np.clip(colour, 0, 255).astype(np.uint8)


def test_the_mode_with_the_lowest_rate_distortion_cost_is_chosen(small, monkeypatch):
    samples = synthetic_image(60, 60)
    costs = {}
    for coding in ("vae", "lossless", "avif"):
        monkeypatch.setattr(mode_decision, "cost", lambda data, *_, coding=coding: coding_of(data) != coding)
        data = modes.encode(small, samples, 50)
        assert coding_of(data) == coding
        monkeypatch.undo()
        costs[coding] = mode_decision.cost(data, samples, small, image_file.quality_index_of(50))
        error = np.mean((modes.decode(data).astype(float) - samples) ** 2)
        lambda_ = 0.0006 * (0.18 / 0.0006) ** (image_file.quality_index_of(50) / 896)
        np.testing.assert_allclose(costs[coding], 8 * len(data) / 3600 + lambda_ * error, rtol=1e-4)
    chosen = modes.encode(small, samples, 50)
    assert costs[coding_of(chosen)] == min(costs.values())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_drawings_can_be_coded_as_avif(small, channels, monkeypatch):
    colour = drawing() if channels > 2 else drawing()[..., 0]
    alpha = np.where(np.arange(320) < 100, 0, 200)[None].repeat(240, 0).astype(np.uint8)
    samples = colour if channels in (1, 3) else np.dstack([colour, alpha])
    monkeypatch.setattr(mode_decision, "is_photograph", lambda *_: False)
    monkeypatch.setattr(mode_decision, "cost", lambda data, *_: coding_of(data) != "avif")
    data = modes.encode(small, samples, 60, {"dpi": bytes(8)})
    assert image_file.info(data)["channels"] == channels and coding_of(data) == "avif"
    decoded = modes.decode(data)
    modes.verify(data)
    assert decoded.shape == samples.shape
    error = decoded.astype(float) - clear_transparent(samples)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 36
    if channels in (2, 4):
        np.testing.assert_array_equal(decoded[..., -1], alpha)
        assert not decoded[:, :100].any()
    np.testing.assert_array_equal(modes.decode(data, (5, 90, 30, 40)), decoded[5:35, 90:130])


def test_avif_is_chosen_for_smooth_drawings(small):
    data = modes.encode(small, drawing(), 60)
    assert coding_of(data) == "avif"
    error = modes.decode(data).astype(float) - drawing()
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 38


def test_avif_is_optional(small, monkeypatch):
    data = modes.encode(small, drawing(), 60)
    monkeypatch.setattr(fallback, "has_avif", lambda: False)
    assert coding_of(modes.encode(small, drawing(), 60)) != "avif"
    for call in (modes.decode, modes.verify):
        with pytest.raises(CodecError, match="built without"):
            call(data)


def test_images_too_wide_for_avif_are_not_coded_as_avif():
    assert fallback.supports_avif((16384, 1), 3)
    assert not fallback.supports_avif((16385, 1), 3) and not fallback.supports_avif((1, 16385), 1)


def test_images_whose_avif_takes_much_memory_are_not_coded_as_avif():
    assert fallback.supports_avif((1200, 1920), 3) and not fallback.supports_avif((1440, 2560), 3)
    assert fallback.supports_avif((1440, 2560), 1) and not fallback.supports_avif((2160, 3840), 1)


def test_an_avif_does_not_depend_on_the_number_of_cores(monkeypatch):
    from PIL import AvifImagePlugin

    data = fallback.encode_avif(drawing(), 50)
    for cores in (1, 8):
        monkeypatch.setattr(AvifImagePlugin, "_get_default_max_threads", lambda cores=cores: cores)
        assert fallback.encode_avif(drawing(), 50) == data


def test_a_damaged_or_foreign_avif_is_refused():
    data = fallback.encode_avif(drawing(), 50)
    file = io.BytesIO()
    Image.fromarray(drawing()).save(file, "JPEG")
    for damaged in (b"", data[:100], data[: len(data) // 2], file.getvalue()):
        with pytest.raises(FormatError, match="AVIF part"):
            fallback.decode_avif(damaged, (240, 320))
    for shape in ((320, 240), (240, 319)):
        with pytest.raises(FormatError, match="size"):
            fallback.decode_avif(data, shape)


def test_windows_of_every_coding_equal_crops(small):
    files = [modes.encode(small, sample(channels), 50) for channels in (1, 2, 3, 4)]
    files += [modes.encode(small, sample(channels, dtype=np.uint16)) for channels in (1, 4)]
    for data in (*files, modes.encode(small, screenshot())):
        image = modes.decode(data).astype(int)
        part = modes.decode(data, (30, 50, 41, 37))
        assert part.shape == image[30:71, 50:87].shape and np.abs(part - image[30:71, 50:87]).max() <= 1
        for window in ((0, 0, 1000, 1), (-1, 0, 5, 5), (0, 0, 0, 5)):
            with pytest.raises(ValueError, match="window"):
                modes.decode(data, window)
        with pytest.raises(LimitError):
            modes.decode(data, limits=Limits(pixels=image.shape[0] * image.shape[1] - 1))
        modes.verify(data)


def box_filtered(samples, factor):
    """Means of squares in floating point, with colours weighted by alpha."""
    height, width = samples.shape[:2]
    means_of_squares = []
    for row in range(0, height, factor):
        for column in range(0, width, factor):
            square = samples[row : row + factor, column : column + factor].reshape(-1, count_channels(samples))
            square = square.astype(np.float64)
            if alpha_channel(samples) is None:
                means_of_squares.append(square.mean(0))
            else:
                weight = square[:, -1]
                colour = (square[:, :-1] * weight[:, None]).sum(0) / max(weight.sum(), 1)
                means_of_squares.append([*(colour if weight.mean() >= 0.5 else 0 * colour), weight.mean()])
    means = np.floor(np.array(means_of_squares) + 0.5).reshape(-(-height // factor), -(-width // factor), -1)
    return means[..., 0] if samples.ndim == 2 else means


@pytest.mark.parametrize("factor", [2, 16])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_previews_of_lossless_images_are_box_filtered(channels, dtype, factor):
    samples = clear_transparent(sample(channels, dtype=dtype))
    data = fallback.pack_lossless(samples)
    preview = modes.decode(data, reduce=factor)
    assert preview.dtype == dtype
    np.testing.assert_array_equal(preview, box_filtered(samples, factor))
    part = modes.decode(data, (32, 48, 20, 41), reduce=factor)
    rows, columns = slice(32 // factor, -(-52 // factor)), slice(48 // factor, -(-89 // factor))
    np.testing.assert_array_equal(part, preview[rows, columns])


@pytest.mark.parametrize("kind", KINDS)
def test_previews_keep_the_kind_of_the_image(small, kind):
    samples = sample(KINDS.index(kind) + 1)
    data = modes.encode(small, samples, 90)
    assert image_file.info(data)["coding"] == "vae"
    image, preview = modes.decode(data), modes.decode(data, reduce=4)
    assert preview.dtype == np.uint8 and preview.shape == (25, 38, *samples.shape[2:])
    alpha = alpha_channel(preview)
    if alpha is not None:
        np.testing.assert_array_equal(alpha, box_filtered(alpha_channel(samples), 4))
    inside = slice(0, 24), slice(0, 37)
    opaque = np.ones(preview.shape[:2], bool) if alpha is None else alpha > 250
    error = (preview.astype(float) - box_filtered(image, 4))[inside][opaque[inside]]
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 28


@pytest.mark.parametrize("encode", [fallback.pack_lossless, lambda samples: modes.encode(vaecodec.load(), samples, 50)])
def test_limits_are_checked_before_decoding(encode, monkeypatch):
    samples = sample(4)
    data = encode(samples)
    for limits in (Limits(pixels=100 * 150 - 1), Limits(side=149)):
        with monkeypatch.context() as context:
            for name in ("decode_lossless", "decode_avif"):
                context.setattr(fallback, name, None)
            for call in (modes.decode, modes.verify):
                with pytest.raises(LimitError):
                    call(data, limits=limits)
            with pytest.raises(LimitError):  # alpha and lossless images are decoded whole
                modes.decode(data, (0, 0, 9, 9), limits=limits)
    assert modes.decode(data, limits=None).shape == samples.shape


def test_invalid_reductions_are_refused(small):
    for data in (fallback.pack_lossless(sample(3)), modes.encode(small, sample(3))):
        with pytest.raises(ValueError, match="reduce is 3, expected one of 1, 2, 4, 8, 16"):
            modes.decode(data, reduce=3)


def test_damaged_alpha_is_detected(small):
    data = modes.encode(small, sample(4))
    alpha = image_file.contents(data).alpha
    for damaged in (
        fallback.encode_lossless(sample(1)),  # a plane that does not match its CRC
        data[alpha.offset : alpha.offset + 4] + fallback.encode_lossless(sample(1)[:-1])[4:],
        data[alpha.offset : alpha.offset + alpha.length - 1],
    )[1:]:
        body = container.pack_chunk(b"ALPH", damaged)
        file = data[: alpha.offset - 8] + body + data[alpha.offset + alpha.length + 4 :]
        for call in (modes.decode, modes.verify):
            with pytest.raises(FormatError, match="lossless part"):
                call(file)


def test_lossless_files_need_no_model(monkeypatch):
    data = vaecodec.encode(screenshot())
    assert coding_of(data) == "lossless"
    monkeypatch.setattr(modes, "codec_for", None)
    np.testing.assert_array_equal(vaecodec.decode(data), screenshot())


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4)),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 3), np.int16),
    ],
)
def test_invalid_sample_arrays_are_refused(small, samples):
    with pytest.raises(CodecError, match="expected"):
        modes.encode(small, samples)


# planes


def test_join_inverts_split():
    for channels in (1, 2, 3, 4):
        samples = clear_transparent(sample(channels))
        rgb, alpha = split_alpha(samples)
        assert rgb.shape == (100, 150, 3)
        np.testing.assert_array_equal(join_alpha(rgb, channels < 3, alpha), samples)


def test_transparent_pixels_are_filled_smoothly():
    visible = np.random.default_rng(0).random((61, 83)) < 0.02
    ramp = np.add.outer(np.arange(61), np.arange(83)).astype(np.uint8)
    smooth = np.dstack([ramp, ramp + 20, 200 - ramp])
    filled = fill_transparent(np.where(visible[..., None], smooth, 0).astype(np.uint8), visible)
    np.testing.assert_array_equal(filled[visible], smooth[visible])
    assert np.abs(filled.astype(int) - smooth).mean() < 6
    none_visible = np.zeros((9, 7), bool)
    assert fill_transparent(np.zeros((9, 7, 3), np.uint8), none_visible).shape == (9, 7, 3)


def test_transparent_colours_do_not_affect_the_size(small):
    samples = sample(4, 128, 128)
    samples[..., 3] = 255
    samples[:, 64:, 3] = 0
    black = modes.encode(small, samples)
    samples[:, 64:, :3] = noise(128, 64)
    assert len(modes.encode(small, samples)) == len(black)
    assert len(black) < 0.75 * len(modes.encode(small, samples[..., :3]))


def test_grey_is_the_rounded_mean():
    values = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    expected = np.floor(values.astype(int).sum(2) / 3 + 0.5)
    np.testing.assert_array_equal(join_alpha(values, True, None), expected)


def test_lossless_payloads_start_with_the_crc_of_the_samples():
    samples = sample(2, dtype=np.uint16)
    assert fallback.encode_lossless(samples)[:4] == zlib.crc32(samples.astype("<u2").tobytes()).to_bytes(4, "little")


# docs/reference/format.md


@pytest.mark.parametrize("path", sorted((GOLDEN / "kinds").glob("*.vae")), ids=lambda path: path.stem)
def test_golden_files_of_every_kind_decode_to_the_stored_pixels(path):
    data = path.read_bytes()
    expected = np.load(path.with_suffix(".npy"))
    model = reference_decoder.read_model(str(GOLDEN / "tiny.vcm"))
    for decoded in (modes.decode(data, model=str(GOLDEN / "tiny.vcm")), reference_decoder.decode(data, model)):
        decoded = decoded.reshape(expected.shape)
        assert decoded.dtype.itemsize == expected.itemsize
        assert np.abs(decoded.astype(int) - expected).max() <= (1 if path.stem.startswith("avif") else 0)


def test_there_is_a_golden_file_of_every_kind():
    names = {path.stem for path in (GOLDEN / "kinds").glob("*.vae")}
    kinds = ("grey", "grey-alpha", "rgb", "rgba")
    codings = ("vae", "vae16", "avif", "lossless", "lossless16", "adaptive", "adaptive16", "near")
    others = {"lossless-png", "adaptive12-grey", "adaptive-shifted", "adaptive-scaled", "vae-adaptive-alpha"}
    others |= {f"adaptive-effort{effort}" for effort in (2, 4, 5, 7, 9)} | {"adaptive-level3"}
    others |= {"near16-effort5", "near16-effort9", "near16-level3"}
    assert names == {f"{coding}-{kind}" for coding in codings for kind in kinds} | others


def files_of_every_kind(tiny):
    for channels in (1, 2, 3, 4):
        yield modes.encode(tiny, sample(channels, 70, 90), 40)
        yield modes.encode(tiny, sample(channels, 40, 50, np.uint16), 40)
        yield fallback.pack_lossless(clear_transparent(sample(channels, 33, 45)), {"dpi": bytes(8)})
        yield fallback.pack_lossless(clear_transparent(sample(channels, 9, 12, np.uint16)), None)
        avif = image_file.FallbackHeader("avif", 30, 40, channels, 8)
        alpha = [(container.ALPHA, fallback.encode_lossless(sample(2)[:30, :40, 1]))] if channels in (2, 4) else []
        pixels = sample(1 if channels < 3 else 3, 30, 40)
        yield container.insert_chunks(image_file.pack_fallback(avif, fallback.encode_avif(pixels, 60)), alpha)
        yield fallback.pack_lossless(
            np.pad(sample(channels, 2, 3), ((0, 0), (0, 16400), (0, 0))[: 2 + (channels > 1)]), None
        )


def test_the_reference_decoder_agrees_on_every_kind(tiny):
    model, path = reference_decoder.read_model(str(GOLDEN / "tiny.vcm")), str(GOLDEN / "tiny.vcm")
    for data in files_of_every_kind(tiny):
        expected = modes.decode(data, model=path)
        decoded = reference_decoder.decode(data, model)
        assert (
            decoded.shape == (*expected.shape[:2], count_channels(expected))
            and decoded.dtype.itemsize == expected.itemsize
        )
        difference = np.abs(decoded.reshape(expected.shape).astype(int) - expected)
        assert difference.max() <= (1 if coding_of(data) == "avif" else 0)
        damaged = bytearray(data)
        damaged[-5] ^= 1  # the last byte of DATA; the CRC is repaired below
        at = image_file.contents(data).data
        damaged[-4:] = zlib.crc32(damaged[at.offset - 4 : -4]).to_bytes(4, "little")
        outcomes = []
        for decoder in (lambda data: modes.decode(data, model=path), lambda d: reference_decoder.decode(d, model)):
            try:
                outcomes.append(decoder(bytes(damaged)).tobytes())
            except (FormatError, ValueError, zlib.error, OSError):
                outcomes.append(None)
        assert outcomes[0] in (None, expected.tobytes())
