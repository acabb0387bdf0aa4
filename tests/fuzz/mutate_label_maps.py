"""Label maps of two or three classes, sound ones and such as tools and accidents make."""

import io
import random

import numpy as np
from mutate_annotations import HEIGHT, WIDTH
from PIL import Image


def make_map(draw: random.Random, odd: bool) -> tuple[bytes, str]:
    """Makes a label map of two or three classes; an odd one as tools and accidents make them."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[HEIGHT // 2 :] = 1
    labels[:, WIDTH // 2 :] = 2
    if not odd:
        return to_png(Image.fromarray(labels)), "sound"
    form = draw.choice(
        ["value", "value", "16 bits", "32 bits", "float", "palette", "colour", "alpha", "bits"]
        + ["size", "turned", "truncated", "bytes", "empty", "jpeg", "gif", "all ignored", "bool"]
        + ["grey alpha", "from 1"]
    )
    picture = Image.fromarray(labels)
    if form == "value":
        labels[:2, :2] = draw.choice([3, 4, 99, 254, 255])
        picture = Image.fromarray(labels)
    elif form in ("16 bits", "32 bits", "float"):
        kind = {"16 bits": np.uint16, "32 bits": np.int32, "float": np.float32}[form]
        wide = labels.astype(kind)
        wide[:2, :2] = draw.choice([2, 255, 256, 257, 65535])
        picture = Image.fromarray(wide)
    elif form == "palette":
        picture.putpalette(
            [i % 256 for i in range(3 * draw.choice([3, 256]))]
            if draw.random() < 0.5
            else [9] * 768
        )
    elif form in ("colour", "alpha", "grey alpha", "bool"):
        mode = {"colour": "RGB", "alpha": "RGBA", "grey alpha": "LA", "bool": "1"}[form]
        picture = picture.convert(mode)
    elif form == "size":
        picture = picture.resize((WIDTH + draw.choice([-1, 1, 40]), HEIGHT))
    elif form == "turned":
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    elif form in ("all ignored", "from 1"):
        picture = Image.fromarray(labels + 1 if form == "from 1" else np.full_like(labels, 255))
    suffix = {"jpeg": "JPEG", "gif": "GIF", "float": "TIFF", "32 bits": "TIFF"}.get(form, "PNG")
    content = bytearray(to_png(picture, suffix))
    if form == "truncated":
        content = content[: draw.randrange(len(content))]
    elif form == "bytes":
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif form == "bits":
        content = bytearray(draw.randbytes(100))
    elif form == "empty":
        content = bytearray()
    return bytes(content), form


def to_png(picture: Image.Image, suffix: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, suffix)
    return file.getvalue()
