"""A PNG reader and writer for 8-bit pictures without a palette. Standard library only; a real service would use
Pillow or libvips, which know more formats and are a hundred times as fast."""
import struct, zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type: grey, RGB, grey with alpha, RGB with alpha
BYTES_MAX = 16 << 20  # of the pixels: a small file can unpack to gigabytes


class Unsupported(Exception):
    """No picture that this reader reads."""


def chunks(file):
    if not file.startswith(SIGNATURE):
        raise Unsupported("not a PNG")
    at = len(SIGNATURE)
    while at + 12 <= len(file):
        length, kind = struct.unpack_from(">I4s", file, at)
        end = at + 8 + length
        if file[end : end + 4] != struct.pack(">I", zlib.crc32(file[at + 4 : end])):
            break
        yield kind, file[at + 8 : end]
        if kind == b"IEND":
            return
        at = end + 4
    raise Unsupported("the PNG is damaged or cut off")


def header(kind, data):
    """Width, height and number of channels."""
    if kind != b"IHDR" or len(data) != 13:
        raise Unsupported("the PNG does not begin with its header")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", data)
    if depth != 8 or colour not in CHANNELS or compression or filters or interlace:
        raise Unsupported("only PNGs of 8 bits a channel, without palette and interlace, are supported")
    if not width or not height or width * height * CHANNELS[colour] > BYTES_MAX:
        raise Unsupported(f"the picture is empty or has more than {BYTES_MAX} bytes of pixels")
    return width, height, CHANNELS[colour]


def decode(file):
    """Width, height, number of channels and an iterator over the rows, each a bytearray."""
    parts = chunks(file)
    width, height, channels = header(*next(parts, (None, b"")))
    size = height * (1 + width * channels)
    try:
        raw = zlib.decompressobj().decompress(b"".join(data for kind, data in parts if kind == b"IDAT"), size + 1)
    except zlib.error:
        raise Unsupported("the PNG's pixels cannot be unpacked")
    if len(raw) != size:
        raise Unsupported("the PNG has too few or too many pixels")
    return width, height, channels, rows(raw, width * channels, channels)


def rows(raw, length, channels):
    above = bytearray(length)
    for at in range(0, len(raw), 1 + length):
        row = bytearray(raw[at + 1 : at + 1 + length])
        unfilter(raw[at], row, above, channels)
        yield row
        above = row


def unfilter(kind, row, above, channels):
    """A row is stored as differences from what stands left of it, above it, or both."""
    if kind > 4:
        raise Unsupported("the PNG has a filter that there is not")
    for i in range(len(row)) if kind else ():
        left, corner = (row[i - channels], above[i - channels]) if i >= channels else (0, 0)
        guess = (0, left, above[i], (left + above[i]) // 2, 0)[kind]
        if kind == 4:
            guess = paeth(left, above[i], corner)
        row[i] = (row[i] + guess) & 255


def paeth(left, up, corner):
    """Whichever is nearest to left + up - corner; of equally near ones, the first."""
    by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner


def encode(width, height, channels, pixels):
    """A PNG of rows that stand one after another in `pixels`, unfiltered."""
    colour = next(colour for colour, number in CHANNELS.items() if number == channels)
    length = width * channels
    raw = b"".join(b"\0" + pixels[at : at + length] for at in range(0, height * length, length))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
