"""Where things stand on the canvas: side by side in rows, one below the other in columns, framed in groups.

Whatever has a `size` and can `place` itself may be laid out; nodes do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

# pixels
GRID = 10
GAP = 30
PADDING = 20  # between a group's frame and its nodes
GROUP_TITLE = 40


class Placed(NamedTuple):
    """A node without its title, or a group, and its rectangle."""

    item: Layout
    x: int
    y: int
    width: int
    height: int


class Layout(Protocol):
    @property
    def size(self) -> tuple[int, int]:
        """Width and height, at least."""

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        """Everything in it, if its upper left corner is at x, y and it is this wide."""


@dataclass(frozen=True)
class Row:
    """Side by side, each as wide as it is."""

    items: tuple[Layout, ...]

    @property
    def size(self) -> tuple[int, int]:
        widths, heights = zip(*(item.size for item in self.items), strict=True)
        return sum(widths) + GAP * (len(widths) - 1), max(heights)

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        for item in self.items:
            yield from item.place(x, y, item.size[0])
            x += item.size[0] + GAP


@dataclass(frozen=True)
class Column:
    """One below the other, all as wide as the column."""

    items: tuple[Layout, ...]

    @property
    def size(self) -> tuple[int, int]:
        widths, heights = zip(*(item.size for item in self.items), strict=True)
        return max(widths), sum(heights) + GAP * (len(heights) - 1)

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        for item in self.items:
            yield from item.place(x, y, width)
            y += item.size[1] + GAP


@dataclass(frozen=True)
class Group:
    """A frame with a title."""

    title: str
    inside: Layout

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.inside.size
        return width + 2 * PADDING, GROUP_TITLE + height + PADDING

    def place(self, x: int, y: int, width: int) -> Iterator[Placed]:
        yield Placed(self, x, y, width, self.size[1])
        yield from self.inside.place(x + PADDING, y + GROUP_TITLE, width - 2 * PADDING)


def row(*items: Layout) -> Row:
    return Row(items)


def column(*items: Layout) -> Column:
    return Column(items)


def group(title: str, *items: Layout) -> Group:
    """A frame around a column."""
    return Group(title, Column(items))


def placed(layout: Layout) -> list[Placed]:
    return list(layout.place(0, 0, layout.size[0]))
