"""Files that were damaged by accident or made to do damage, out of good ones."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from random import Random

import torch

from npnet_core.tensorfile import HASH, data_hash
from tests.fuzz.odd import odd_text, odd_value

DTYPES = ["BOOL", "U8", "I8", "I16", "U16", "I32", "I64", "U64", "F16", "BF16", "F32", "F64", "F8_E4M3", "F7", 1, None]


class Payload:
    """Makes a folder when it is unpickled with code; a weights-only reader must not."""

    def __init__(self, function: Callable, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def damaged(random: Random, content: bytes) -> tuple[str, bytes]:
    """What accidents do to any file."""
    size = len(content)
    start, length = random.randrange(size), min(random.choice([1, 4, 16, 256, 4096]), size)
    kind = random.choice(["flip", "cut", "longer", "overwrite", "remove", "repeat", "swap", "empty", "noise"])
    data = bytearray(content)
    if kind == "flip":
        near = random.choice([size, size, min(size, 600)])  # headers are where most can go wrong
        for _ in range(random.choice([1, 1, 2, 8, 64])):
            data[random.randrange(near)] ^= 1 << random.randrange(8)
    elif kind == "cut":
        data = data[:start]
    elif kind == "longer":
        data += random.randbytes(length)
    elif kind == "overwrite":
        data[start : start + length] = random.choice([bytes(length), b"\xff" * length, random.randbytes(length)])
    elif kind == "remove":
        del data[start : start + length]
    elif kind == "repeat":
        data[start:start] = data[start : start + length]
    elif kind == "swap":
        other = random.randrange(size)
        one, two = bytes(data[start : start + length]), bytes(data[other : other + length])
        data[start : start + length], data[other : other + length] = two, one
    elif kind == "empty":
        data = bytearray()
    elif kind == "noise":
        data = bytearray(content[: random.choice([0, 1, 2, 9])] + random.randbytes(length))
    return f"{kind} at {start}, {length} bytes", bytes(data)


def hostile_safetensors(random: Random, content: bytes, configs: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """A header that lies, its checksum put right half of the time.

    Args:
        configs: keys of the metadata whose value is JSON, to spoil what is inside.
    """
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = random.choice(["length", "header", "dtype", "shape", "offsets", "key", "twice", "metadata", "config"])
    what = kind
    if kind == "length":
        length = random.choice([0, 1, length - 1, length + 1, 100_000_001, 2**31, 2**63, 2**64 - 1])
        return f"a header of {length} bytes", length.to_bytes(8, "little") + content[8:]
    if kind == "header":
        deep = random.choice([1000, 100_000])
        headers = [b"", b"{", b"{}", b"[]", b"null", b'{"a":' * deep, b"{" + b'"a":{}' * 2 + b"}", b"{\xff\xfe}"]
        headers += [b'{"__metadata__":{}}', b'{"a":' + b"[" * deep + b"]" * deep + b"}", b'{"a":NaN}', b'{"a":1e999}']
        text = random.choice(headers)
        return f"the header {text[:40]!r}", len(text).to_bytes(8, "little") + text + data
    names = [name for name in header if name != "__metadata__"]
    name, entries = random.choice(names), list(header.items())
    if kind == "dtype":
        header[name]["dtype"] = random.choice(DTYPES)
        what = f"{name} is {header[name]['dtype']}"
    elif kind == "shape":
        shape = header[name]["shape"]
        header[name]["shape"] = random.choice(
            [
                [2**62, 4],
                [2**40],
                [-1],
                [0],
                [],
                [1.5],
                ["1"],
                None,
                [*shape, 1],
                shape[::-1],
                [1] * 100,
                odd_value(random),
            ]
        )
        what = f"{name} has shape {str(header[name]['shape'])[:40]}"
    elif kind == "offsets":
        start, end = header[name]["data_offsets"]
        header[name]["data_offsets"] = random.choice(
            [[end, start], [0, end], [start, 2**63], [-1, end], [start], None, [start + 4, end + 4], [0, 0]]
        )
        what = f"{name} is at {header[name]['data_offsets']}"
    elif kind == "key":
        new = odd_text(random)
        entries = [(new if key == name else key, value) for key, value in entries]
        what = f"{name} is called {new[:40]!r}"
    elif kind == "twice":
        entries.append((name, header[random.choice(names)]))
        what = f"{name} stands twice"
    elif kind == "metadata" or not configs:
        key = random.choice([HASH, *configs, *header.get("__metadata__", {}), "npnet.x", odd_text(random)])
        header.setdefault("__metadata__", {})[key] = odd_value(random) if random.random() < 0.3 else odd_text(random)
        what = f"metadata {key[:40]!r}"
    else:
        key = random.choice(configs)
        text = spoilt_json(random, header["__metadata__"][key])
        header["__metadata__"][key] = text
        what = f"{key} is {text[:80]!r}"
    entries = [(key, header.get(key, value)) for key, value in entries]
    if "__metadata__" in header and HASH in header["__metadata__"] and random.random() < 0.5:
        header["__metadata__"][HASH] = data_hash(bytes(8) + data)
    lines = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in entries)
    text = ("{" + lines + "}").encode("utf-8", "surrogatepass")
    return what, len(text).to_bytes(8, "little") + text + data


def spoilt_json(random: Random, text: str) -> str:
    """JSON with one value, somewhere inside, that does not belong there; now and then no JSON."""
    if random.random() < 0.1:
        return random.choice(["", "{", "null", "[]", "1", "NaN", text[:-1], text * 2, "[" * 100_000, odd_text(random)])
    root = [json.loads(text)]
    parent, key = root, 0
    while isinstance(parent[key], (dict, list)) and parent[key] and (parent is root or random.random() < 0.7):
        parent = parent[key]
        key = random.choice(list(parent)) if isinstance(parent, dict) else random.randrange(len(parent))
    what = random.random()
    if what < 0.1 and isinstance(parent, dict):
        parent[odd_text(random)] = parent.pop(key)
    elif what < 0.2 and parent is not root:
        del parent[key]
    else:
        parent[key] = odd_value(random)
    return json.dumps(root[0])


def hostile_pickle(random: Random, tensors: dict, folder: Path) -> tuple[str, bytes]:
    """A PyTorch file that holds more than it should; what runs code when read makes a folder beside ``folder``."""
    trap = str(folder.parent / "executed")
    name = random.choice(list(tensors))
    values = {
        "os.mkdir": lambda: Payload(__import__("os").mkdir, trap),
        "eval": lambda: Payload(eval, f"__import__('os').mkdir({trap!r})"),
        "exec": lambda: Payload(exec, f"import os; os.mkdir({trap!r})"),
        "getattr": lambda: Payload(getattr, torch, "load"),
        "a path": lambda: folder,
        "a module": lambda: torch.nn.Linear(2, 2),
        "a set": lambda: {1},
        "text": lambda: odd_text(random),
        "a value": lambda: odd_value(random),
        "NaN": lambda: torch.full_like(tensors[name], float("nan")),
        "half": lambda: tensors[name].half(),
        "complex": lambda: tensors[name].to(torch.complex64),
        "whole numbers": lambda: tensors[name].long(),
        "truth": lambda: tensors[name] > 0,
        "sparse": lambda: tensors[name].to_sparse(),
        "expanded": lambda: torch.ones(1).expand(2**40),
        "as large, expanded": lambda: torch.ones(1).expand(tensors[name].shape),
        "empty": lambda: torch.ones(0),
        "a view": lambda: torch.ones(10**6)[:3],
        "a parameter": lambda: torch.nn.Parameter(tensors[name]),
        "meta": lambda: tensors[name].to("meta"),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8),
        "nested": lambda: {"a": {"b": {"c": torch.ones(1)}}},
        "fp8": lambda: tensors[name].to(torch.float8_e4m3fn),
    }
    what = random.choice(list(values))
    value = values[what]()
    content = random.choice(
        [
            {**tensors, name: value},
            {"state_dict": {**tensors, name: value}},
            {**tensors, odd_text(random): value},
            {**tensors, random.choice([1, None, (1, 2), b"x"]): value},
            value,
            [value],
            {"state_dict": value},
        ]
    )
    file = BytesIO()
    way = random.choice(["zip", "zip", "old", "bare", "deflated", "bomb"])
    if way == "bare":
        try:
            return f"{what}, a bare pickle", pickle.dumps(content, random.choice([2, 4, 5]))
        except (TypeError, pickle.PicklingError, NotImplementedError, RuntimeError):
            way = "zip"
    try:
        torch.save(content, file, _use_new_zipfile_serialization=way != "old")
    except Exception:  # torch itself does not write everything
        torch.save({**tensors, name: folder}, file)
    if way == "deflated":
        return f"{what}, deflated", _deflated(file.getvalue())
    if way == "bomb":
        return "a bomb", _deflated(file.getvalue(), bomb=200 * 2**20)
    return f"{what}, {way}", file.getvalue()


def _deflated(content: bytes, bomb: int = 0) -> bytes:
    result = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            data = old.read(entry)
            if bomb and entry.filename.endswith("/data/0"):
                data = bytes(bomb)
            new.writestr(entry.filename, data)
    return result.getvalue()
