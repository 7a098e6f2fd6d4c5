"""One tiny bundle and one loaded categorizer for all tests of the library."""

from pathlib import Path

import pytest

from mmcat.categorizer import Categorizer
from tests.support.tiny import make_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that reads both modalities. Read only: copy it to change it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def categorizer(tiny_bundle: Path) -> Categorizer:
    """The tiny bundle on the CPU, fp32."""
    return Categorizer.load(tiny_bundle, device="cpu", precision="fp32")
