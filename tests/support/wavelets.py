"""Float wavelet transforms that the package itself does not need."""

import numpy as np

from vaecodec.transforms import wavelet
from vaecodec.transforms.latents import pack_latents
from vaecodec.transforms.networks import color_transform
from vaecodec.transforms.wavelet import OCTAVES, Coefficients, merge_axis


def inverse_dwt(low: np.ndarray, subbands: np.ndarray) -> np.ndarray:
    """The inverse of float_wavelet.forward_dwt, by lifting."""
    horizontal, vertical, diagonal = np.split(subbands, 3)
    return merge_axis(merge_axis(low, horizontal, 2), merge_axis(vertical, diagonal, 2), 1)


def latents_of_pixels(pixels: np.ndarray) -> np.ndarray:
    """The inverse of latents.inverse_dwt."""
    low, subbands = np.moveaxis(pixels @ color_transform(pixels.shape[2]).T, 2, 0), []
    for _ in range(OCTAVES):
        low, octave = wavelet.float_forward_dwt(low)
        subbands.append(octave)
    return pack_latents(Coefficients(subbands, low))
