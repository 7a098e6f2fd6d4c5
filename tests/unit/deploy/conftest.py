"""Every test of the manifests sees every overlay."""

import pytest

from tests.support.manifests import Rendered, overlays, rendered_by


@pytest.fixture(params=overlays())
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """The objects of an overlay."""
    return rendered_by(request.param)
