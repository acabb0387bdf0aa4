"""What damage and malice can make of a checkpoint."""

import io
import json
import pickle
import pickletools
import random
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
from checkpoint_kinds import INDEX
from torch_archives import Call

SIZES = (0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
TEXTS = (
    *(
        "",
        "a",
        "\x1b[31m",
        "\x1b]0;x\x07",
        "\u202e",
        "\x00",
        "\ud7ff",
        "x" * 5000,
        "../a",
        "data/1",
    ),
    *(
        "cuda:0",
        "meta",
        "cpu",
        "O",
        "O8",
        "f8",
        ">f4",
        "M8[s]",
        "V8",
        "state_dict",
        "model",
        "meta",
    ),
)
NAMES = (
    *("os system", "builtins eval", "builtins getattr", "numpy ndarray", "numpy dtype"),
    *("torch._utils _rebuild_tensor_v2", "torch FloatStorage", "torch DoubleStorage"),
    *("collections OrderedDict", "builtins set", "builtins bytearray", "builtins complex"),
    *("torch Size", "numpy.core.multiarray scalar", "builtins range", "builtins dict"),
    *("mmengine.logging.history_buffer HistoryBuffer", "pathlib PosixPath", "datetime datetime"),
    *("collections deque", "collections defaultdict", "torch._utils _rebuild_parameter"),
)


# Bytes


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flips, cuts, repeats, exchanges or overwrites bytes; ends of files are more interesting."""
    data = bytearray(content)
    if not data:
        return bytes(draw.choices(range(256), k=8))
    near = min(len(data), draw.choice([64, 1024, len(data), len(data)]))
    at = draw.randrange(near) if draw.random() < 0.5 else len(data) - 1 - draw.randrange(near)
    length = draw.choice([1, 2, 8, 100, 3000])
    kind = draw.choice(["flip", "flip", "cut", "drop", "repeat", "fill", "number", "swap"])
    if kind == "flip":
        for _ in range(draw.choice([1, 1, 1, 4])):
            place = min(len(data) - 1, max(0, at + draw.randrange(-8, 8)))
            data[place] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "drop":
        del data[at : at + length]
    elif kind == "repeat":
        data[at:at] = data[at : at + length]
    elif kind == "fill":
        filler = draw.choice([b"\0", b"\xff", b"(", b"]", b"}", b"["])
        data[at : at + length] = filler * min(length, len(data) - at)
    elif kind == "number":
        data[at : at + 8] = struct.pack("<q", draw.choice(SIZES))
    else:
        other = draw.randrange(len(data))
        first, second = data[at : at + length], data[other : other + length]
        data[at : at + len(second)], data[other : other + len(first)] = second, first
    return bytes(data)


# Pickles


def encode_int(value: int) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def encode_text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


INSERTED = (
    *(pickle.DUP, pickle.POP, pickle.BUILD, pickle.REDUCE, pickle.NEWOBJ, pickle.TUPLE1),
    *(pickle.APPEND, pickle.SETITEM, pickle.SETITEMS, pickle.ADDITEMS, pickle.EMPTY_LIST),
    *(pickle.EMPTY_DICT, pickle.EMPTY_TUPLE, pickle.MARK, pickle.TUPLE2, pickle.STOP, pickle.NONE),
    *(pickle.MEMOIZE, pickle.BINPERSID, pickle.FROZENSET, pickle.BINGET + b"\1", pickle.OBJ),
    *(pickle.LONG4 + b"\xff\xff\xff\x7f", pickle.BINBYTES8 + struct.pack("<Q", 2**62)),
    *(pickle.BYTEARRAY8 + struct.pack("<Q", 2**40), pickle.LONG_BINPUT + b"\xff\xff\xff\x7f"),
    *(pickle.EMPTY_LIST * 200, pickle.TUPLE1 * 300),
)


def encode(value: object) -> bytes:
    """A pickle without its frame, which puts nothing into the memo, to stand within another."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=2)
    pickler.fast = True
    pickler.dump(value)
    return file.getvalue()[2:-1]


def lying_array(dtype: object, shape: tuple = (1,), data: bytes = b"AAAAAAAA") -> bytes:
    empty = (np.ndarray, (0,), b"b")
    return encode(Call(np.zeros(1).__reduce__()[0], empty, (1, shape, dtype, False, data)))


def lying_dtype(code: str, *state: object) -> Call:
    return Call(np.dtype, (code, False, True), (3, *state))


# Whole values: nested deeply, within themselves, or arrays that are not what they say.
HOSTILE = (
    *(pickle.EMPTY_LIST * depth + pickle.APPEND * (depth - 1) for depth in (60, 99, 200, 50_000)),
    *(pickle.NONE + pickle.TUPLE1 * depth for depth in (60, 200, 50_000)),
    *((pickle.EMPTY_DICT + b"K\1") * n + pickle.NONE + pickle.SETITEM * n for n in (60, 200, 9999)),
    pickle.EMPTY_LIST + pickle.DUP + pickle.APPEND,
    b"}q\xfaK\x01h\xfas",  # a dict in itself
    b"]q\xfah\xfa\x85a",  # a list in a tuple in itself
    *(lying_array(np.dtype(code)) for code in ("O", "M8[s]", "V8", ">f8", "f4", "U2", "?")),
    *(lying_array(np.dtype("f8"), shape) for shape in ((2,), (-1,), (2**40,), (2**32, 2**32), ())),
    lying_array(lying_dtype("f8", "|", None, None, None, 8, 8, 63)),
    lying_array(lying_dtype("f8", "<", None, None, None, 2**31, 1, 0)),
    lying_array(lying_dtype("f8", "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 0)),
    lying_array(lying_dtype("O8", "|", None, None, None, -1, -1, 63)),
    encode(Call(np.ndarray, ((2**40,),))),
    encode(np.arange(3)),
)


def mutate_pickle(content: bytes, draw: random.Random) -> bytes:
    """Changes one to three opcodes of a pickle, or what they say."""
    places = [place for _, _, place in pickletools.genops(content)]
    ends = [*places[1:], places[-1] + 1]
    parts = [content[start:end] for start, end in zip(places, ends, strict=True)]
    rest = content[ends[-1] :]
    places = [i for i, part in enumerate(parts) if part == pickle.SETITEMS]
    if places and draw.random() < 0.2:  # one more value, in a dict
        at = draw.choice([places[-1], draw.choice(places)])
        parts[at] = encode_text("planted") + draw.choice(HOSTILE) + parts[at]
        return b"".join(parts) + rest
    for _ in range(draw.choice([1, 1, 2, 3])):
        at = _choose_opcode(parts, draw)
        kind = draw.choice(["value", "value", "value", "drop", "repeat", "swap", "insert", "move"])
        if kind == "value":
            parts[at] = _other_value(parts[at], draw)
        elif kind == "drop":
            parts[at] = b""
        elif kind == "repeat":
            parts[at] *= 2
        elif kind == "insert":
            parts[at] += draw.choice(INSERTED)
        elif kind == "swap":
            other = min(len(parts) - 1, at + draw.choice([1, 2, 5]))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at] += draw.choice(parts)
    return b"".join(parts) + rest


def _choose_opcode(parts: list[bytes], draw: random.Random) -> int:
    """An opcode, its kind being chosen first: names are few, and numbers many."""
    kind = draw.choice(sorted({part[:1] for part in parts}))
    return draw.choice([i for i, part in enumerate(parts) if part[:1] == kind])


def _other_value(part: bytes, draw: random.Random) -> bytes:
    code = part[:1]
    if draw.random() < 0.25 and code not in (pickle.GLOBAL, pickle.BINPUT, pickle.LONG_BINPUT):
        return draw.choice(HOSTILE)  # in place of any value
    if code == pickle.GLOBAL:
        return code + draw.choice(NAMES).replace(" ", "\n").encode() + b"\n"
    if code in (pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.UNICODE):
        return encode_text(draw.choice(TEXTS))
    if code in (pickle.BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.LONG_BINPUT):
        return code + bytes(draw.choices(range(256), k=len(part) - 1))
    if code in (pickle.NEWTRUE, pickle.NEWFALSE, pickle.NONE, pickle.EMPTY_TUPLE):
        return draw.choice([pickle.NEWTRUE, pickle.NONE, encode_int(1), encode_text("a")])
    return encode_int(draw.choice(SIZES))


# Files


def mutate_archive(path: Path, draw: random.Random) -> None:
    """Changes records of an archive, whose checksums are right again."""
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    names = [name for name, _ in records]
    pick, other = draw.randrange(len(records)), draw.randrange(len(records))
    name, content = records[pick]
    method = zipfile.ZIP_STORED
    kind = draw.choice(["pickle"] * 8 + ["swap", "swap", "drop", "cut", "grow", "name", "compress"])
    if kind == "pickle":
        pick = next(i for i, name in enumerate(names) if name.endswith("/data.pkl"))
        records[pick] = (names[pick], mutate_pickle(records[pick][1], draw))
    elif kind == "swap":
        records[pick], records[other] = (name, records[other][1]), (names[other], content)
    elif kind == "drop":
        del records[pick]
    elif kind in ("cut", "grow"):
        changed = content[: len(content) // 2] if kind == "cut" else content + bytes(4)
        records[pick] = (name, changed)
    elif kind == "name":
        records[pick] = (draw.choice([names[other], "../x", "/x", "a\x1bb", f"{name}/"]), content)
    else:
        method = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of names that are there twice
                archive.writestr(zipfile.ZipInfo(name), content, method)


def mutate_legacy(path: Path, draw: random.Random) -> None:
    """Changes one of the pickles before the memory: magic, version, system, content, keys."""
    content = path.read_bytes()
    file, ends = io.BytesIO(content), [0]
    for _ in range(5):
        for _ in pickletools.genops(file):
            pass
        ends.append(file.tell())
    which = draw.choice([0, 1, 2, 3, 3, 3, 3, 4])
    changed = mutate_pickle(content[ends[which] : ends[which + 1]], draw)
    path.write_bytes(content[: ends[which]] + changed + content[ends[which + 1] :])


VALUES = (
    *(*SIZES, *TEXTS, None, True, 0.5, [], {}, [1, 2], [[0]], [2**63, 0], {"a": {}}, "F64", "BF16"),
    *([2**32, 2**32], [0, 2**62], "F8_E4M3", "a.safetensors", "/etc/passwd"),
)


def mutate_json(text: bytes, draw: random.Random) -> bytes:
    """Changes a value or a key somewhere in a text of JSON, or nests it deeply."""
    content = json.loads(text)
    parent: dict | list | None = None
    key: object = None
    value = content
    while isinstance(value, dict | list) and value and (parent is None or draw.random() < 0.8):
        parent = value
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        value = parent[key]
    kind = draw.choice(["value", "value", "key", "drop", "deep", "repeat"])
    if parent is None or kind == "value":
        new = draw.choice(VALUES)
        if parent is not None:
            parent[key] = new
    elif kind == "key" and isinstance(parent, dict):
        parent[draw.choice(TEXTS)] = parent.pop(key)
    elif kind == "drop":
        del parent[key]
    elif kind == "repeat":
        name = json.dumps(key).encode()
        return text.replace(name, name + b": 1, " + name, 1)
    else:
        parent[key] = "@"
        depth = draw.choice([50, 5000])
        deep = draw.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth])
        return json.dumps(content).replace('"@"', deep).encode()
    return json.dumps(content).encode()


def mutate_header(path: Path, draw: random.Random) -> None:
    """Changes the header of a file of safetensors, or the length it states."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if draw.random() < 0.1:
        stated, header = draw.choice(SIZES) % 2**64, content[8 : 8 + length]
    else:
        header = mutate_json(content[8 : 8 + length], draw)
        stated = len(header)
    path.write_bytes(struct.pack("<Q", stated) + header + content[8 + length :])


def mutate(kind: str, path: Path, draw: random.Random) -> bool:
    """Changes a checkpoint in place.

    Args:
        kind: A key of `KINDS` in `checkpoint_kinds`.
        path: What it wrote.
        draw: Chooses.

    Returns:
        Whether checksums were left alone, so that damage must show.
    """
    if kind == "sharded":
        target = path.parent / draw.choice([INDEX, INDEX, "a.safetensors", "b.safetensors"])
        if target == path and draw.random() < 0.7:
            target.write_bytes(mutate_json(target.read_bytes(), draw))
            return False
    else:
        target = path
    is_archive = kind not in ("run-legacy", "legacy", "safetensors", "sharded", "detectron2")
    if draw.random() < 0.4:
        target.write_bytes(mutate_bytes(target.read_bytes(), draw))
        return is_archive
    if is_archive:
        mutate_archive(target, draw)
    elif kind == "detectron2":
        target.write_bytes(mutate_pickle(target.read_bytes(), draw))
    elif kind in ("run-legacy", "legacy"):
        mutate_legacy(target, draw)
    elif target.name == INDEX:
        target.write_bytes(mutate_bytes(target.read_bytes(), draw))
    else:
        mutate_header(target, draw)
    return False
