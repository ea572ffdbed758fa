"""Pictures of any mode as upright RGB, with transparency composited over white."""

from typing import Any

import numpy as np

from at_jax.data.files import png

__all__ = ["TURNED", "from_sixteen_bits", "orientation", "to_rgb", "upright"]

_ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF tag; its values that exchange height and width


def from_sixteen_bits(values: np.ndarray, opacity: np.ndarray | None, depth: int) -> Any:
    """Convert the values and the opacity of a 16-bit PNG, of which `depth` bits are used."""
    from PIL import Image

    # In place: a large image has several copies already.
    values = np.minimum(np.right_shift(values, np.uint16(depth - 8), out=values), np.uint16(255))
    colors = values.astype(np.uint8)
    image = Image.fromarray(colors if colors.shape[-1] == 3 else colors[..., 0]).convert("RGB")
    if opacity is None:
        return image
    return _over_white(image, Image.fromarray((opacity >> np.uint16(8)).astype(np.uint8)))


def to_rgb(image: Any, content: bytes) -> Any:
    """Convert a picture that was decoded from `content`, with transparency over white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    key = image.info.get("transparency")
    # A gray PNG of 2 or 4 bits is widened to 8; its transparent value is not.
    if image.mode == "L" and isinstance(key, int) and image.format == "PNG":
        image.info["transparency"] = key * 255 // (2 ** png.bits(content) - 1)
    rgba = image.convert("RGBA")
    if image.format == "BMP" and not np.any(rgba.getchannel("A")):
        return rgba.convert("RGB")  # programs leave the fourth byte unset
    return _over_white(rgba.convert("RGB"), rgba.getchannel("A"))


def _over_white(image: Any, opacity: Any) -> Any:
    from PIL import Image

    result = Image.new("RGB", image.size, "white")
    result.paste(image, mask=opacity)
    return result


def upright(rgb: Any, image: Any) -> Any:
    """Rotate or mirror a picture by the EXIF orientation of `image`, as viewers do."""
    from PIL import Image

    turns = Image.Transpose
    methods = {
        2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
        6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90,
    }  # fmt: skip
    method = methods.get(orientation(image))
    return rgb if method is None else rgb.transpose(method)


def orientation(image: Any) -> int:
    """EXIF orientation, 1 to 8; 1 is upright."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Damaged metadata: the picture is shown as it is stored.
        return 1
