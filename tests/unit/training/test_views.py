"""Augmented views of a photo: seeded by listing and view, never more than a mirror and a mild crop."""

import numpy as np
import pytest

from training.views import augmented

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)


def test_view_zero_is_the_photo_and_view_one_its_mirror_image() -> None:
    assert np.array_equal(augmented(PIXELS, "p1", 0), PIXELS)
    assert np.array_equal(augmented(PIXELS, "p1", 1), PIXELS[:, ::-1])


@pytest.mark.parametrize("view", [2, 3, 9])
def test_a_crop_is_the_same_in_every_run_and_another_for_another_listing_or_view(view: int) -> None:
    one = augmented(PIXELS, "p1", view)
    assert one.shape == PIXELS.shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, augmented(PIXELS, "p1", view))
    assert not np.array_equal(one, augmented(PIXELS, "p2", view))
    assert not np.array_equal(one, augmented(PIXELS, "p1", view + 1))


def test_a_crop_shows_most_of_the_photo() -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    for number in range(50):
        shown = augmented(ramp, f"p{number}", 2)[0, :, 0].astype(int)
        assert 0.7 < (shown.max() - shown.min()) / 199 <= 1
