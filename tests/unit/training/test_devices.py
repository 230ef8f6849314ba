"""Test what is refused before training on several devices begins."""

import pytest

pytest.importorskip("tensorflow")

from support.models import TINY_CONFIG
from vaecodec.errors import CodecError
from vaecodec.model.generative import Generative
from vaecodec.training import loop


@pytest.mark.parametrize(
    ("config", "batch", "devices", "message"),
    [
        (TINY_CONFIG, 3, 2, "a batch of 3 cannot be divided between 2 devices"),
        (TINY_CONFIG, 64, 64, "64 devices are requested, but TensorFlow has"),
        (Generative(), 4, 2, "trained on one device"),
    ],
)
def test_indivisible_batches_and_models_are_refused(config, batch, devices, message, tmp_path):
    with pytest.raises(CodecError, match=message):
        loop.train([], str(tmp_path / "run"), config, loop.Options(batch=batch), devices=devices)
    assert not (tmp_path / "run").exists()
