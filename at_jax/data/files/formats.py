"""File formats, recognized by content: the name of a file does not tell what a decoder will find in it."""

__all__ = ["FORMATS", "HEAD", "READABLE", "claims_image", "is_sixteen_bit_png", "recognize"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # Pillow's names
READABLE = "JPEG, PNG, WebP, BMP or GIF"
HEAD = 512  # bytes that recognize() needs
_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif",
)  # fmt: skip
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the header that follows the file's own
# Of files that are not read, for messages.
_OTHERS = (
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"%!PS", "EPS"), (b"\xc5\xd0\xd3\xc6", "EPS"), (b"%PDF", "PDF"), (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"), (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"DDS ", "DDS"), (b"qoif", "QOI"),
    (b"v/1\x01", "OpenEXR"), (b"\x93NUMPY", "NumPy"), (b"PK\x03\x04", "ZIP"), (b"\x1f\x8b", "gzip"),
    (b"\x89HDF", "HDF5"), (b"SIMPLE  =", "FITS"), (b"gimp xcf", "XCF"),
)  # fmt: skip


def recognize(head: bytes) -> str:
    """Name the format of a file by its first `HEAD` bytes: one of `FORMATS`, or a word for a message.

    >>> recognize(b"GIF89a"), recognize(b"%!PS-Adobe"), recognize(b"<html>"), recognize(b"")
    ('GIF', 'EPS', 'HTML', 'empty')
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    # Two letters alone may begin a text.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return _other(head)


def _other(head: bytes) -> str:
    if not head:
        return "empty"
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "AVIF or HEIC" if head[8:12] in (b"avif", b"heic", b"mif1", b"heix") else "video"
    if head[128:132] == b"DICM":
        return "DICOM"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if b"<svg" in start:
        return "SVG"
    try:
        # The last character may be cut off.
        text = head.decode() if len(head) < HEAD else head[:-4].decode(errors="ignore")
    except UnicodeDecodeError:
        return "of an unknown format"
    printable = all(character.isprintable() or character in "\t\r\n\f" for character in text)
    return "text" if printable else "of an unknown format"


def claims_image(name: str) -> bool:
    """Whether a file has the suffix of a format that is read, in any case."""
    return name.lower().endswith(_SUFFIXES)


def is_sixteen_bit_png(head: bytes) -> bool:
    """Whether a file is a PNG whose values have 16 bits; no other format that is read has any."""
    return recognize(head) == "PNG" and head[24:25] == b"\x10"
