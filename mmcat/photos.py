"""Bytes of a photo → uint8 pixels of the network's size, safely: the one function that training and serving share.

Any bytes end in pixels or in a PhotoError, nothing else. Format, size and structure are read by photo_headers.py and
checked before anything is allocated. Plain JPEGs (what shops send) go through simplejpeg, twice as fast as Pillow with
the same pixels; all other formats, and JPEGs that simplejpeg will not take (CMYK, recoverable faults), go through
Pillow.

After photo_headers.py; before preparation.py. Does not fetch and does not normalise: uint8 goes to the device. torch is
imported at the first photo.
"""

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from mmcat.errors import PhotoError
from mmcat.photo_headers import read_header

Fit = Literal["pad", "crop"]
Pixels = npt.NDArray[np.uint8]

# Above any shop photo (phones send 12 to 50 megapixels), below what could hurt a worker: 50 megapixels are 150 MB, and
# took 530 MB more than that while Pillow unpacked a WebP of this size.
MAX_PIXELS = 50_000_000
_EXIF_ORIENTATION = 0x0112


def decode(
    data: bytes,
    px: int,
    fit: Fit = "pad",
    fill: int = 255,
    max_pixels: int = MAX_PIXELS,
    *,
    scaled: bool = False,
) -> Pixels:
    """Decodes a photo to a square of RGB pixels.

    Keeps the aspect and reduces with antialiased bilinear interpolation. EXIF orientation is applied, transparency is
    laid over `fill`, animations give their first frame, 16-bit samples keep their high byte. Thread-safe; blocks for
    the time of decoding (1–3 ms for a usual shop photo).

    Args:
        data: JPEG, PNG, WebP, GIF, BMP, or AVIF where Pillow has it.
        px: side of the square, in pixels.
        fit: "pad" shows the whole photo on `fill`; "crop" shows its centre square.
        fill: grey value of the padding, 0..255 (255: white, as shop photos have).
        max_pixels: photos with more pixels in the header are refused before they are unpacked.
        scaled: plain JPEGs are unpacked at the smallest eighth of their size that is not below the target, from the
            low frequencies of their blocks alone. Quicker, and other pixels (a few levels apart at edges): a model
            must see in service what it saw in training.

    Returns:
        uint8 [px, px, 3], RGB, C-contiguous.

    Raises:
        PhotoError: "undecodable" (not an image, truncated, corrupt) or "refused" (too large).
    """
    try:
        header = read_header(data)
        _refuse_bomb(header.pixels, max_pixels)
        Image.init()
        with Image.open(io.BytesIO(data), formats=[header.format]) as image:
            _refuse_bomb(image.width * image.height, max_pixels)
            size = _size(image.height, image.width, px, fit)
            pixels = _decode_jpeg(data, image, max_pixels, size if scaled else (0, 0))
            if pixels is None:
                image.load()
                pixels = _to_rgb(image, fill)
            orientation = _orientation(image)
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError("refused", "more pixels than are ever unpacked") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them trip over
        raise PhotoError("undecodable", f"not a whole photo of a known format ({type(error).__name__})") from error
    return _fit(pixels, size, orientation, px, fit, fill)


def _refuse_bomb(pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise PhotoError("refused", f"{pixels} pixels where at most {max_pixels} are unpacked")


def _size(height: int, width: int, px: int, fit: Fit) -> tuple[int, int]:
    """Height and width to which the whole photo is brought: its longer side (pad) or its shorter one (crop) is px."""
    scale = px / (max(height, width) if fit == "pad" else min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _decode_jpeg(data: bytes, image: Image.Image, max_pixels: int, least: tuple[int, int]) -> Pixels | None:
    """The fast road: [H, W, 3], or None where Pillow should look at it.

    Args:
        least: height and width that the pixels must have at least, where the photo has them; (0, 0): as they are.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        _refuse_bomb(height * width, max_pixels)  # its parser may read another size than Pillow's
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
    except ValueError:  # strict: also for faults from which Pillow recovers
        return None
    return pixels


def _to_rgb(image: Image.Image, fill: int) -> Pixels:
    """A loaded image of any mode → [H, W, 3]."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, (fill, fill, fill, 255))
        image = Image.alpha_composite(background, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 (upright) when there is none or it cannot be read."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises anything; the pixels are good
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _fit(pixels: Pixels, size: tuple[int, int], orientation: int, px: int, fit: Fit, fill: int) -> Pixels:
    if fit == "crop":
        # Cut before resizing: a 1 × 50,000,000 strip must not be enlarged to px × 50,000,000 · px.
        height, width = pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return np.ascontiguousarray(
            _upright(_resize(pixels[top : top + side, left : left + side], px, px), orientation)
        )
    small = _upright(_resize(pixels, *size), orientation)
    square = np.full((px, px, 3), fill, np.uint8)
    top, left = (px - small.shape[0]) // 2, (px - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    return square


def _resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Antialiased bilinear on uint8: the same kernel as torchvision's `resize`, without importing torchvision."""
    import torch

    if pixels.shape[:2] == (height, width):
        return pixels
    # A batch of one, then the axes turned: with the stride of a whole photo PyTorch sees channels-last and answers in
    # it; in the other order its answer is planar, and costs a turn there and another here.
    image_BCHW = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)
    small_BCHW = torch.nn.functional.interpolate(
        image_BCHW, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return small_BCHW.permute(0, 2, 3, 1).squeeze(0).numpy()


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes an EXIF orientation (TIFF 6.0, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
