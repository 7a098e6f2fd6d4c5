"""A listing becomes text and pixels, and says what became of its photo."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcat.errors import ModelError
from mmcat.listing import ImageStatus, Listing
from mmcat.photos import decode
from mmcat.preparation import Preprocessing, listing_text, photo


def _jpeg(width: int = 40, height: int = 30) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("listing", "status"),
    [
        (Listing("1", "a", _jpeg()), ImageStatus.USED),
        (Listing("1", "a", _jpeg(), image_status=ImageStatus.UNAVAILABLE), ImageStatus.USED),
        (Listing("1", "a"), ImageStatus.ABSENT),
        (Listing("1", "a", image_status=ImageStatus.USED), ImageStatus.ABSENT),
        (Listing("1", "a", image_status=ImageStatus.PENDING), ImageStatus.PENDING),
        (Listing("1", "a", image_status=ImageStatus.UNAVAILABLE), ImageStatus.UNAVAILABLE),
        (Listing("1", "a", b"<html>"), ImageStatus.UNDECODABLE),
        (Listing("1", "a", b""), ImageStatus.UNDECODABLE),
        (Listing("1", "a", _jpeg(400, 300)), ImageStatus.REFUSED),
    ],
)
def test_the_status_says_what_became_of_the_photo(listing: Listing, status: ImageStatus) -> None:
    pixels, found = photo(listing, Preprocessing(px=32, max_pixels=100_000))
    assert found is status
    assert (pixels is not None) == (status is ImageStatus.USED)


def test_text_fields_are_joined_in_order_without_gaps() -> None:
    listing = Listing("1", " Tee ", brand="", maker="Puma SE")
    assert listing_text(listing, ("title",)) == "Tee"
    assert listing_text(listing, ("maker", "brand", "title")) == "Puma SE Tee"
    assert listing_text(Listing("1", "  "), ("title",)) == ""


def test_preprocessing_survives_json_and_refuses_what_it_does_not_know() -> None:
    preprocessing = Preprocessing(px=48, fit="crop", text_fields=("title", "brand"))
    data = preprocessing.to_json()
    assert Preprocessing.from_json(data) == preprocessing
    for broken in ({**data, "gamma": 2}, {key: value for key, value in data.items() if key != "px"}):
        with pytest.raises(ModelError, match=r"gamma|px"):
            Preprocessing.from_json(broken)


def test_scaled_decoding_is_asked_for_by_the_preprocessing_and_off_where_it_is_not_named() -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((640, 640)).rotate(30).save(buffer, "JPEG")
    listing = Listing("1", image=buffer.getvalue())
    plain, scaled = Preprocessing(px=48), Preprocessing(px=48, scaled_decode=True)
    assert "scaled_decode" not in plain.to_json()  # what was written before it was there is read, and named, as ever
    assert Preprocessing.from_json(scaled.to_json()) == scaled
    for preprocessing in (plain, scaled):
        pixels, _ = photo(listing, preprocessing)
        assert pixels is not None
        assert np.array_equal(pixels, decode(buffer.getvalue(), 48, scaled=preprocessing.scaled_decode))
    assert not np.array_equal(decode(buffer.getvalue(), 48), decode(buffer.getvalue(), 48, scaled=True))


@pytest.mark.parametrize("change", [{"px": 0}, {"fill": 256}, {"text_fields": ()}, {"text_fields": ("price",)}])
def test_preprocessing_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        Preprocessing.from_json({**Preprocessing(px=32).to_json(), **change})
