#!/usr/bin/env python3
"""Makes the two tiny models for drawn faces: tiny-detect.onnx and tiny-embed.onnx. Python's standard library alone.

    models/make_tiny.py            writes both beside this file, and the digests into their manifests
    models/make_tiny.py --check    exits with 1 if what lies there is not what would be written

A drawn face (client/extract/src/drawn.rs) has a disc of a colour of its own at each of its five landmarks. The detector
measures, per colour and within a window around every cell of 8 x 8 pixels, mass, centre and spread by convolutions with
the weights 1, x, y and x^2 + y^2; the centres are the landmarks. It answers with the outputs of YuNet at stride 8.
The embedder averages the colours of 24 patches of an aligned face, takes the mean over the patches away (light does not
matter then) and multiplies by a fixed matrix of signs.

Neither knows anything of real faces.
"""
import hashlib
import math
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent

# --- ONNX, written by hand: the few messages of onnx.proto that are needed ---------------------------------------------


def varint(value):
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, body):
    if isinstance(body, str):
        body = body.encode()
    return varint(field << 3 | 2) + varint(len(body)) + body


FLOAT, INT64 = 1, 7


def tensor(name, shape, values, kind=FLOAT):
    assert math.prod(shape) == len(values), (name, shape, len(values))
    raw = struct.pack(f"<{len(values)}{'f' if kind == FLOAT else 'q'}", *values)
    return b"".join(number(1, side) for side in shape) + number(2, kind) + message(8, name) + message(9, raw)


def attribute(name, value):
    if isinstance(value, int):
        return message(1, name) + number(3, value) + number(20, 2)
    return message(1, name) + b"".join(number(8, item) for item in value) + number(20, 7)


def value_info(name, shape):
    sides = b"".join(message(1, number(1, s) if isinstance(s, int) else message(2, s)) for s in shape)
    return message(1, name) + message(2, message(1, number(1, FLOAT) + message(2, sides)))


class Graph:
    def __init__(self, name):
        self.name, self.nodes, self.weights, self.used = name, [], [], 0

    def weight(self, shape, values, kind=FLOAT):
        self.used += 1
        name = f"w{self.used}"
        self.weights.append(tensor(name, shape, values, kind))
        return name

    def op(self, kind, *inputs, output=None, **attributes):
        self.used += 1
        output = output or f"t{self.used}"
        body = b"".join(message(1, name) for name in inputs) + message(2, output)
        body += message(3, f"{kind.lower()}{self.used}") + message(4, kind)
        body += b"".join(message(5, attribute(*item)) for item in sorted(attributes.items()))
        self.nodes.append(body)
        return output

    def scalar(self, value):
        return self.weight([1], [value])

    def conv(self, x, outputs, inputs, size, values, bias=None, **attributes):
        weights = [x, self.weight([outputs, inputs, *size], values)]
        if bias is not None:
            weights.append(self.weight([outputs], bias))
        return self.op("Conv", *weights, kernel_shape=list(size), **attributes)

    def mix(self, x, rows, bias=None):
        """A matrix applied to the channels of every cell."""
        return self.conv(x, len(rows), len(rows[0]), (1, 1), [value for row in rows for value in row], bias)

    def clip(self, x):
        """To 0 .. 1."""
        return self.op("Sub", self.op("Relu", x), self.op("Relu", self.op("Sub", x, self.scalar(1.0))))

    def model(self, inputs, outputs):
        body = b"".join(message(1, node) for node in self.nodes) + message(2, self.name)
        body += b"".join(message(5, weight) for weight in self.weights)
        body += b"".join(message(11, value_info(*item)) for item in inputs)
        body += b"".join(message(12, value_info(*item)) for item in outputs)
        opset = message(1, "") + number(2, 13)
        return number(1, 7) + message(2, "veilmatch make_tiny") + message(7, body) + message(8, opset)


# --- The detector -----------------------------------------------------------------------------------------------------

# Red, green, blue of the discs at: left eye, right eye, nose, left and right corner of the mouth (drawn.rs has the same).
COLOURS = [(20, 20, 230), (20, 220, 220), (30, 210, 30), (220, 20, 210), (220, 30, 20)]
STRIDE = 8
# Cells on either side that a window reaches.
REACH = 10


def unit(row, length):
    return [1.0 if column == row else 0.0 for column in range(length)]


def detector():
    g = Graph("tiny-detect")
    n = len(COLOURS)
    # How far every pixel is from every colour: the sum of |channel - colour| in parts of full scale.
    rows, bias = [], []
    for colour in COLOURS:
        for channel, value in enumerate(colour):
            for sign in (1.0, -1.0):
                rows.append([sign * part for part in unit(channel, 3)])
                bias.append(-sign * value / 255)
    far = g.op("Relu", g.mix("input", rows, bias))
    # 1 up to a distance of 1/4, then falling, 0 from 1/2.
    mask = g.clip(g.mix(far, [[-4.0 if i // 6 == k else 0.0 for i in range(6 * n)] for k in range(n)], [2.0] * n))
    # Per cell: mass, and the moments x, y, x^2 + y^2 about the cell's corner, in cells.
    values = []
    for _ in range(n):
        for moment in (lambda x, y: 1.0, lambda x, y: x, lambda x, y: y, lambda x, y: x * x + y * y):
            values += [moment(x / STRIDE, y / STRIDE) for y in range(STRIDE) for x in range(STRIDE)]
    cells = g.conv(mask, 4 * n, 1, (STRIDE, STRIDE), values, strides=[STRIDE] * 2, group=n)
    # Per window: the same about the corner of the window's middle cell, first along rows, then along columns.
    taps = range(-REACH, REACH + 1)
    for axis in (0, 1):
        values = []
        for _ in range(n):
            # Row: which of the four comes out; entry: how much of each of the four goes in, at a distance of d cells.
            mass = [lambda d: 1.0, lambda d: 0.0, lambda d: 0.0, lambda d: 0.0]
            along = [lambda d: float(d), lambda d: 1.0, lambda d: 0.0, lambda d: 0.0]
            across = [lambda d: 0.0, lambda d: 0.0, lambda d: 1.0, lambda d: 0.0]
            square = [lambda d: float(d * d), lambda d: 2.0 * d, lambda d: 0.0, lambda d: 1.0]
            if axis == 1:
                swap = lambda four: [four[0], four[2], four[1], four[3]]
                along, across, square = swap(across), swap(along), swap(square)
            for four in (mass, along, across, square):
                for part in four:
                    values += [part(d) for d in taps]
        size = (1, len(taps)) if axis == 0 else (len(taps), 1)
        pads = [0, REACH, 0, REACH] if axis == 0 else [REACH, 0, REACH, 0]
        cells = g.conv(cells, 4 * n, 4, size, values, pads=pads, group=n)
    mass, x, y, square = (g.mix(cells, [unit(4 * k + part, 4 * n) for k in range(n)]) for part in range(4))
    per_mass = g.op("Div", g.scalar(1.0), g.op("Add", mass, g.scalar(1e-3)))
    x, y, square = (g.op("Mul", moment, per_mass) for moment in (x, y, square))
    spread = g.op("Sub", square, g.op("Add", g.op("Mul", x, x), g.op("Mul", y, y)))
    # A disc of area A has the spread A / 2 pi. Twice that is still one disc, three times is two faces in one window.
    ratio = g.op("Mul", g.op("Mul", spread, per_mass), g.scalar(STRIDE * STRIDE * 2 * math.pi))
    compact = g.op("ReduceMin", g.clip(g.op("Sub", g.scalar(3.0), ratio)), axes=[1], keepdims=1)
    least = g.op("ReduceMin", mass, axes=[1], keepdims=1)
    most = g.op("ReduceMax", mass, axes=[1], keepdims=1)
    # All five discs have one size; a window that cuts one of them is worth less.
    whole = g.op("Div", least, g.op("Add", most, g.scalar(1e-3)))
    there = g.clip(g.op("Mul", g.op("Sub", least, g.scalar(6.0)), g.scalar(1 / 6)))
    score = g.op("Mul", g.op("Mul", whole, compact), there)
    # x0 y0 x1 y1 ... from x0 .. x4 y0 .. y4.
    points = g.mix(g.op("Concat", x, y, axis=1), [unit(k // 2 + n * (k % 2), 2 * n) for k in range(2 * n)])
    # The box: about the middle of the eyes and a little below, 2.3 by 2.9 times as far as the eyes are apart.
    middle = [[0.0] * (2 * n) for _ in range(2)]
    for coordinate in (0, 1):
        for mark, share in ((0, 0.475), (1, 0.475), (3, 0.025), (4, 0.025)):
            middle[coordinate][2 * mark + coordinate] = share
    apart = g.mix(points, [[-v + w for v, w in zip(unit(c, 2 * n), unit(2 + c, 2 * n))] for c in (0, 1)])
    distance = g.op("ReduceSum", g.op("Mul", apart, apart), g.weight([1], [1], INT64), keepdims=1)
    size = g.op("Log", g.op("Sqrt", g.op("Add", distance, g.scalar(1e-6))))
    sides = [g.op("Add", size, g.scalar(math.log(factor))) for factor in (2.3, 2.9)]
    box = g.op("Concat", g.mix(points, middle), *sides, axis=1)
    outputs = []
    for name, value, channels in (("cls", score, 1), ("obj", score, 1), ("bbox", box, 4), ("kps", points, 2 * n)):
        name = f"{name}_{STRIDE}"
        flat = g.op("Transpose", value, perm=[0, 2, 3, 1])
        g.op("Reshape", flat, g.weight([3], [1, -1, channels], INT64), output=name)
        outputs.append((name, [1, "cells", channels]))
    return g.model([("input", [1, 3, "height", "width"])], outputs)


# --- The embedder -----------------------------------------------------------------------------------------------------

SIDE, PATCH, DIMENSION = 64, 8, 64
# Patches (column, row) of the 8 x 8 that carry a person's pattern; the discs lie on the others (drawn.rs has the same).
COVERED = {(2, 3), (2, 4), (5, 3), (5, 4), (3, 4), (4, 4), (3, 5), (4, 5), (2, 6), (3, 6), (4, 6), (5, 6)}
PATTERN = [(column, row) for row in range(1, 7) for column in range(1, 7) if (column, row) not in COVERED]


def signs(count):
    """A fixed sequence of +1 and -1: the top bits of splitmix64."""
    state, out = 0x7665696C6D617463, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % (1 << 64)
        z = state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
        z = (z ^ z >> 27) * 0x94D049BB133111EB % (1 << 64)
        out.append(1.0 if (z ^ z >> 31) >> 63 else -1.0)
    return out


def embedder():
    g = Graph("tiny-embed")
    grid = SIDE // PATCH
    pooled = g.op("AveragePool", "input", kernel_shape=[PATCH] * 2, strides=[PATCH] * 2)
    flat = g.op("Reshape", pooled, g.weight([2], [1, -1], INT64))
    places = [channel * grid * grid + row * grid + column for channel in range(3) for column, row in PATTERN]
    patches = g.op("Gather", flat, g.weight([len(places)], places, INT64), axis=1)
    # Centring per channel and the matrix of signs, multiplied once and for all.
    matrix = [signs(len(places) * DIMENSION)[i * DIMENSION:(i + 1) * DIMENSION] for i in range(len(places))]
    values = []
    for i, row in enumerate(matrix):
        channel = i // len(PATTERN)
        block = matrix[channel * len(PATTERN):(channel + 1) * len(PATTERN)]
        values += [value - sum(other[j] for other in block) / len(PATTERN) for j, value in enumerate(row)]
    g.op("MatMul", patches, g.weight([len(places), DIMENSION], values), output="output")
    return g.model([("input", [1, 3, SIDE, SIDE])], [("output", [1, DIMENSION])])


# --- Writing and checking ---------------------------------------------------------------------------------------------


def with_digest(text, digest):
    lines = [f'sha256 = "{digest}"' if line.startswith("sha256 = ") else line for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    for name, make in (("tiny-detect", detector), ("tiny-embed", embedder)):
        model, manifest = HERE / f"{name}.onnx", HERE / f"{name}.toml"
        data = make()
        text = manifest.read_text()
        wanted = with_digest(text, hashlib.sha256(data).hexdigest())
        if check:
            if not model.exists() or model.read_bytes() != data:
                stale.append(model.name)
            if text != wanted:
                stale.append(manifest.name)
        else:
            model.write_bytes(data)
            manifest.write_text(wanted)
            print(f"{model.name}: {len(data)} bytes")
    if stale:
        sys.exit(f"not what make_tiny.py makes: {', '.join(stale)}")
    if check:
        print("tiny models: as make_tiny.py makes them")


if __name__ == "__main__":
    main()
