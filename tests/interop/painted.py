"""Pictures that carry a number in blocks big enough to survive any encoder; and how loud a tone is.

Needs nothing but Python, so that applications on the system's own Python can paint too.
"""

BLOCK = 40
COLUMNS, ROWS = 8, 6
WIDTH, HEIGHT = BLOCK * COLUMNS, BLOCK * ROWS
DARK, LIGHT = 40, 210  # neither is the black of a filler
BITS = 2 * COLUMNS
# Light and dark in turn: what has not got this on top carries no number.
MARK = [column % 2 == 0 for column in range(COLUMNS)]


def i420(number):
    """A frame of raw video."""
    bits = [bool(number >> bit & 1) for bit in range(BITS)]
    # Every bit twice, the second time the other way round.
    cells = MARK + bits + [not bit for bit in bits] + MARK
    luma = bytearray()
    for row in range(ROWS):
        line = b"".join(bytes([LIGHT if cell else DARK]) * BLOCK for cell in cells[row * COLUMNS:][:COLUMNS])
        luma += line * BLOCK
    return bytes(luma) + bytes([128]) * (WIDTH * HEIGHT // 2)


def read(luma, stride, width, height):
    """The number that a picture of any size carries, or else "black" or "other"; by the middle of each block."""
    rows = [(2 * row + 1) * height // (2 * ROWS) for row in range(ROWS)]
    columns = [(2 * column + 1) * width // (2 * COLUMNS) for column in range(COLUMNS)]
    cells = [luma[y * stride + x] for y in rows for x in columns]
    if max(cells) < 30:
        return "black"
    lit = [cell > (DARK + LIGHT) // 2 for cell in cells]
    bits, inverse = lit[COLUMNS:][:BITS], lit[COLUMNS + BITS:][:BITS]
    if lit[:COLUMNS] != MARK or lit[-COLUMNS:] != MARK or any(one == other for one, other in zip(bits, inverse)):
        return "other"
    return sum(bit << place for place, bit in enumerate(bits))
