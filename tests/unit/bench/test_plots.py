"""Test that the colours of curves can be told apart, with every kind of sight, on light and dark backgrounds."""

import itertools
import re

import numpy as np
import pytest

from vaecodec.bench.report import COLOURS, TEMPLATE

TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(1)
# Machado, Oliveira and Fernandes 2009, table 1, severity 1, for linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
LEAST = {"normal": 25, "protan": 25, "deutan": 25, "tritan": 15}  # just noticeable is 2.3


def linear(colours: list[str]) -> np.ndarray:
    """f64[n, 3] linear RGB of #RRGGBB."""
    values = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def cielab(rgb: np.ndarray) -> np.ndarray:
    xyz = rgb @ TO_XYZ.T / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


def schemes() -> list[tuple[list[str], str]]:
    """(colours, background) of the report's two schemes."""
    with open(TEMPLATE, encoding="utf-8") as file:
        style = file.read().partition("</style>")[0]
    backgrounds = re.findall(r"--back: (#\w+)", style)
    colours = re.findall(r"--c\d: (#\w{6})", style)
    assert len(colours) == 20 and len(backgrounds) == 2
    return [(colours[:10], "#ffffff"), (colours[10:], backgrounds[1])]


@pytest.mark.parametrize("scheme", [0, 1])
def test_ten_colours_can_be_told_apart(scheme):
    colours, background = schemes()[scheme]
    rgb, back = linear(colours), linear([background])
    for sight, matrix in SIGHT.items():
        perceived = cielab(np.clip(rgb @ np.array(matrix).T, 0, 1))
        distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(perceived, 2)]
        assert min(distances) >= LEAST[sight], sight
    light, dark = np.maximum(rgb @ TO_XYZ[1], back @ TO_XYZ[1]), np.minimum(rgb @ TO_XYZ[1], back @ TO_XYZ[1])
    assert ((light + 0.05) / (dark + 0.05)).min() >= 3  # WCAG 2.2, 1.4.11


def test_plots_have_the_colours_of_the_report():
    assert list(COLOURS) == schemes()[0][0]
