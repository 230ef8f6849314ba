"""Test the JSON of architectures, including fields of earlier versions."""

import pytest

from support.models import SMALL_CONFIG as CONFIG
from vaecodec.config import Config, without_retired_fields


@pytest.mark.parametrize("fields", [{"hyper": 4}, {"channels": 0}, {"coarser": 5000}, {"prior": 1.5}])
def test_invalid_fields_are_refused(fields):
    with pytest.raises(ValueError, match="config"):
        Config.from_dict({**CONFIG.to_dict(), **fields})


def test_retired_fields_are_dropped_if_they_have_no_effect():
    old = {name: value for name, value in CONFIG.to_dict().items() if name != "channels"}
    old |= {"latents": 768, "hyper": 0, "wavelet": 1}
    assert Config.from_dict(without_retired_fields(old)) == CONFIG
    assert without_retired_fields(CONFIG.to_dict()) == CONFIG.to_dict()
    for fields in ({**old, "latents": 384}, {**old, "hyper": 48}, {**old, "lapped": 1}, {**old, "wavelet": 0}):
        with pytest.raises(ValueError, match="not of a wavelet model"):
            without_retired_fields(fields)
