"""A listing's photo as a small JPEG inside the page, so that one file shows everything without network.

After the readers; before evaluation.py. Decodes as serving does: what cannot be decoded there has no thumbnail.
"""

import base64
import io

from PIL import Image

from mmcat.errors import PhotoError
from mmcat.photos import decode
from training.data import Row

SIDE_PX = 84


def thumbnail(row: Row) -> str | None:
    """A data URI of about 2 kB; None where the listing has no photo that can be decoded."""
    if row.photo is None:
        return None
    try:
        pixels = decode(row.photo(), SIDE_PX, "pad", 255)
    except PhotoError:
        return None
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(body.getvalue()).decode()}"
