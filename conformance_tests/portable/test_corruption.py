"""Every change of one byte is refused: all bytes with all values, nightly."""

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="safetensors is not installed")

from conformance_tests.portable.test_files import refused
from inna_core.portable.file import encode
from inna_core.portable.state import PortableState


@pytest.mark.nightly
def test_every_byte_with_every_other_value_is_refused() -> None:
    state = PortableState("arrays", "INNA", 1, {"w": {"velocity": np.arange(3.0)}}, {}, {"w": {"alpha": 0.5}})
    data = encode(state)
    for i, byte in enumerate(data):
        for value in set(range(256)) - {byte}:
            assert refused(data[:i] + bytes([value]) + data[i + 1 :]), (i, value)
