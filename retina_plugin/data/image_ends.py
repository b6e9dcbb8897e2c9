"""Whether an image file is whole, by its last bytes."""

from __future__ import annotations

from typing import IO

JPEG_END = b"\xff\xd9"
PNG_END = b"IEND\xaeB`\x82"


def has_end(file: IO[bytes], image_format: str | None) -> bool:
    """Whether a JPEG or PNG file ends as it should; others, and odd ends, need decoding."""
    file.seek(max(0, file.seek(0, 2) - len(PNG_END)))
    end = file.read()
    if image_format in ("JPEG", "MPO"):
        return end.endswith(JPEG_END)
    return image_format == "PNG" and end == PNG_END
