#!/usr/bin/env python3
"""Makes thumbnails, bytes in and bytes out: `python3 thumbnails.py [PORT]`. See docs/cookbook.md.

An item's data is a PNG; the answer is a smaller one, which becomes the item's data.
"""
import png
from service import Bytes, Refused, serve

SIDE_MAX = 128  # pixels


def smaller(width, height):
    """The size of the thumbnail: the longer side is SIDE_MAX, or what it was if that is less."""
    longer = max(width, height, SIDE_MAX)
    return max(1, width * SIDE_MAX // longer), max(1, height * SIDE_MAX // longer)


def shrink(width, height, channels, rows):
    """Each new pixel is the mean of the box of old ones that it covers."""
    to_width, to_height = smaller(width, height)
    columns = [range(x * width // to_width, (x + 1) * width // to_width) for x in range(to_width)]
    edges = {(y + 1) * height // to_height for y in range(to_height)}
    pixels, band = bytearray(), []
    for number, row in enumerate(rows, 1):
        band.append(row)
        if number in edges:
            for box in columns:
                pixels += mean([row[x * channels : (x + 1) * channels] for row in band for x in box])
            band = []
    return to_width, to_height, bytes(pixels)


def mean(box):
    channels, number = len(box[0]), len(box)
    if channels in (1, 3):
        return bytes((sum(channel) + number // 2) // number for channel in zip(*box))
    # With alpha, which stands last: what cannot be seen must not colour what can.
    alpha = sum(pixel[-1] for pixel in box)
    colours = (sum(pixel[c] * pixel[-1] for pixel in box) // max(alpha, 1) for c in range(channels - 1))
    return bytes((*colours, (alpha + number // 2) // number))


def work(delivery):
    try:
        width, height, channels, rows = png.decode(delivery.body)
        to_width, to_height, pixels = shrink(width, height, channels, rows)
    except png.Unsupported as error:
        raise Refused(str(error))
    return Bytes(png.encode(to_width, to_height, channels, pixels), "image/png")


if __name__ == "__main__":
    serve(work)
