"""Values, texts, names and pictures that nobody expects."""

from __future__ import annotations

import math
from random import Random

import torch
from torch import Tensor

VALUES = [0, 1, -1, 2, 3, 4, 7, 64, 1000, 10**6, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 10**400]
VALUES += [0.0, 0.5, -0.5, 1e-320, 1e30, 1e308, math.nan, math.inf, -math.inf, True, False, None]
VALUES += ["", "x", "1", "nan", [], [1], [1, 1], [[1]], [10**9, 1], [0.5], [1] * 5000, {}, {"a": 1}, {"": {}}]

TEXTS = [
    "",
    " ",
    "\n",
    "\t\t",
    "\0",
    "a\0b",
    "\x1b[31mred\x1b[0m",
    "\x07\x08\x7f\x85\u2028\u2029",
    "🦊🏔️👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301" * 50,
    "שלום עולם",
    "\u202eadmin\u202c.exe",
    "مرحبا بالعالم",
    "红狐狸在雪地里",
    "﷽" * 20,
    "Z̷̡͝a̴l̸g̵o̶" * 10,
    "((((a:1.1):1e9):nan)",
    "(" * 500,
    ")" * 500,
    "\\(\\)",
    "embedding:../../etc/passwd",
    "<|endoftext|>" * 30,
    "{a|b|c} __wild__ <lora:x:1>",
    "'; DROP TABLE prompts; --",
    '"],"a":{"',
    "%s %d {0} {} $HOME `id`",
    "\ud800",
    "a\udfffb",
    "word " * 400,
    "x" * 100_000,
    "🦊" * 25_000,
    "&amp;&#0;&lt;&#x110000;&nosuch;",
    "ï¿½Ã©â€™",
]

NAMES = [
    "..",
    ".",
    "...",
    "../x",
    "../../x",
    "..\\x",
    "a/../../x",
    "a/b",
    "/x",
    "/nowhere/x",
    "//server/share/x",
    "\\\\server\\share\\x",
    "C:\\x",
    "C:x",
    "c:/x",
    "~/x",
    "~",
    "$HOME/x",
    "%TEMP%\\x",
    "file:///x",
    "x\0",
    "x\0.safetensors",
    "\0",
    "con",
    "CON.txt",
    "nul",
    "COM1",
    "lpt¹",
    "aux.safetensors",
    "x.",
    "x ",
    " x",
    "x:stream",
    "x\n",
    "x\r",
    "a" * 101,
    "a" * 300,
    "日本語",
    "\u202ex",
    "é",
    "e\u0301",
    "\ud800",
    "-rf",
    "--help",
    "*",
    "?",
    "x|y",
    "<x>",
    '"x"',
    "'x'",
    ".hidden",
    "manifest.json",
    "parts",
    "ok name-1_2.x",
]


def odd_value(random: Random):
    """JSON values of all types, at their limits."""
    if random.random() < 0.2:
        return random.choice([random.randint(-100, 100), random.uniform(-10, 10), odd_text(random)])
    return random.choice(VALUES)


def odd_text(random: Random) -> str:
    """Texts that break parsers, terminals and file systems; now and then any characters at all."""
    if random.random() < 0.3:
        top = random.choice([0x7F, 0x7FF, 0xFFFF, 0x10FFFF])
        return "".join(chr(random.randint(0, top)) for _ in range(random.choice([1, 5, 40, 300])))
    return random.choice(TEXTS)


def odd_name(random: Random) -> str:
    """Names that lead elsewhere or that some system refuses."""
    name = random.choice(NAMES)
    return random.choice([name, name, name, odd_text(random), name + ".safetensors", f"{name}/{random.choice(NAMES)}"])


def odd_images(random: Random) -> tuple[str, Tensor]:
    """Images [B, H, W, C] of sizes, types and values that no camera makes; seldom 8k."""
    small = [1, 1, 2, 7, 16, 33, 64]
    height, width = random.choice(small), random.choice(small)
    if random.random() < 0.1:
        height, width = random.choice([(8192, 1), (1, 8192), (8192, 16), (3, 7680), (16384, 1)])
    if random.random() < 0.004:
        height, width = 4320, 7680
    channels = random.choice([3] * 12 + [1, 4, 2, 0, 5])
    batch = random.choice([1, 1, 1, 2, 3, 3, 0]) if height * width < 10**6 else 1
    images = torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(random.getrandbits(32)))
    way = random.choice(
        ["as it is"] * 8 + ["NaN", "inf", "far", "over", "constant", "half", "bytes", "double", "shape"]
    )
    if way in ("NaN", "inf") and images.numel():
        images.view(-1)[random.randrange(images.numel())] = math.nan if way == "NaN" else math.inf
    elif way == "far":
        images = images * 255
    elif way == "over":
        images = images * 1.8 - 0.4
    elif way == "constant":
        images = torch.full_like(images, random.choice([0.0, 1.0, 0.5]))
    elif way == "half":
        images = images.half()
    elif way == "double":
        images = images.double()
    elif way == "bytes":
        images = (images * 255).byte()
    elif way == "shape":
        images = random.choice([images[0:1].sum(-1), images[None], images.flatten(), images.movedim(-1, 1)])
    return f"images {list(images.shape)}, {way}", images
