"""Seeded augmentations of a photo: the same row and view give the same pixels in every run.

    view 0   the photo as serving sees it
    view 1   its mirror image
    view 2…  a crop of 70 to 100 % of its area, sides 4:5 to 5:4, enlarged back; every second one mirrored, by chance
             (the random resized crop of Szegedy et al. 2015, milder: a listing's photo shows the whole product)

On uint8 pixels of the network's size, after decoding and before the encoder. Used by features.py.
"""

import hashlib
import math

import numpy as np
from PIL import Image

from mmcat.photos import Pixels

AREA = (0.7, 1.0)
ASPECT = (4 / 5, 5 / 4)


def augmented(pixels: Pixels, row_id: str, view: int) -> Pixels:
    """The view of a square photo, uint8 [px, px, 3] in and out."""
    if view == 0:
        return pixels
    if view == 1:
        return pixels[:, ::-1]
    seed = hashlib.blake2b(f"{view}\t{row_id}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(seed))
    px = len(pixels)
    side = px * math.sqrt(generator.uniform(*AREA))
    stretch = math.exp(generator.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])) / 2)
    width, height = min(px, side * stretch), min(px, side / stretch)
    left, top = generator.uniform(0, px - width), generator.uniform(0, px - height)
    box = (left, top, left + width, top + height)
    cropped = np.asarray(Image.fromarray(pixels).resize((px, px), Image.Resampling.BILINEAR, box=box))
    return cropped[:, ::-1] if generator.random() < 0.5 else cropped
