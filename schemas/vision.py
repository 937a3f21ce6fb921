"""The fields that predictions over pictures share: size and boxes, in pixels of the picture as it is seen.

A picture is seen turned as its EXIF orientation says.
"""

import pyarrow as pa

from schemas.task import field

IMAGE = "The picture. JPEG, PNG, WebP, GIF (its first frame), BMP and TIFF are read, of any mode."
WIDTH = field("width", pa.int32(), "How wide the picture is, turned as its EXIF orientation says.", unit="px")
HEIGHT = field("height", pa.int32(), "How high the picture is, turned as its EXIF orientation says.", unit="px")


def box(description: str) -> pa.Field:
    """Return a field `box`, whose edges are floats."""
    edges = [
        field("xmin", pa.float32(), "The left edge, from the picture's left.", unit="px"),
        field("ymin", pa.float32(), "The upper edge, from the picture's top.", unit="px"),
        field("xmax", pa.float32(), "The right edge, from the picture's left.", unit="px"),
        field("ymax", pa.float32(), "The lower edge, from the picture's top.", unit="px"),
    ]
    return field("box", pa.struct(edges), description)
