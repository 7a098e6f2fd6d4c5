"""A tiny real bundle and a photo of a size that shops have, for the commands that need a model."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny import make_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of 1,200 × 900 px."""
    coarse = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    body = io.BytesIO()
    Image.fromarray(coarse).resize((1200, 900)).save(body, "JPEG", quality=90)
    file = tmp_path_factory.mktemp("photos") / "shoe.jpg"
    file.write_bytes(body.getvalue())
    return file
