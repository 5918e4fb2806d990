"""OUT/report.html of a fit on preference models: figures, curves, and the same pictures at every look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from npnet_core.architectures import GoldenNet
from npnet_core.atomic_write import atomic_write
from npnet_core.preference import KINDS
from trainer.data.images import image_stem, write_image
from trainer.fitting.held_out import SEEDS, HeldOut
from trainer.fitting.learning_curve import learning_curve
from trainer.report.formatting import fixed, percent, signed
from trainer.report.gallery import PIXELS, thumbnail
from trainer.report.page import Block, Section, block, macros, page, section, table

PROMPTS, LOOKS = 8, 6  # pictures within the page: so many rows, and columns beside plain noise
PLAIN = "plain"


def write_pictures(out: Path, held_out: HeldOut, npnet: GoldenNet, step: int) -> None:
    """OUT/pictures/plain and OUT/pictures/STEP: one picture of each of the first held-out prompts."""
    for name, net in ((PLAIN, None), (f"{step:08d}", npnet)):
        for prompt in held_out.prompts[:PROMPTS]:
            path = picture(out, name, prompt)
            if name != PLAIN or not path.exists():
                images, _ = held_out.images(net, prompt, prompt, SEEDS[:1])
                write_image(path, images[0], {"prompt": prompt, "seed": SEEDS[0], "noise": name})


def picture(out: Path, name: str, prompt: str) -> Path:
    return out / "pictures" / name / f"{image_stem(prompt, SEEDS[0])}.png"


def write_page(out: Path, held_out: HeldOut, rows: Sequence[dict]) -> None:
    """The page, from the rows of the log and the pictures that are there."""
    last = next(row for row in reversed(rows) if "trained_gain" in row)
    sections = [
        section("Held-out prompts", [("", [figures(held_out, last), control(last)])], note(held_out)),
        Section("Curves", macros("parts.html").figure(Markup(learning_curve(rows)), "", "chart")),
        Section("Pictures", pictures(out, held_out)),
    ]
    with atomic_write(out / "report.html") as partial:
        partial.write_text(page(f"Golden noise by reward: {out.name}", sections, f"after step {last['step']}"), "utf-8")


def note(held_out: HeldOut) -> str:
    return (
        f"{len(held_out.prompts)} prompts that the net is not trained on, {len(SEEDS)} images of each, against plain "
        "noise with the same seeds. What it is trained on says less than what is only watched."
    )


def figures(held_out: HeldOut, row: dict) -> Block:
    head = ("scorer", "", "plain noise", "golden noise", "gain", "won")
    rows = []
    for scorers, words in ((held_out.rewards, "trained on"), (held_out.watched, "watched")):
        for kind in scorers:
            value, gain = row[f"validation_{kind}"], row[f"validation_{kind}_gain"]
            title = KINDS[kind].title if kind in KINDS else kind
            cells = (fixed(value - gain, 4), fixed(value, 4), signed(gain, 4), percent(row[f"validation_{kind}_wins"]))
            rows.append((title, words, *cells))
    return table(head, rows)


def control(row: dict) -> Block:
    """The guards, in words."""
    items = [f"gain by what it is trained on: {signed(row['trained_gain'], 3)} standard deviations"]
    if row.get("watched_gain") is not None:
        items.append(f"by what is watched: {signed(row['watched_gain'], 3)}")
    if row.get("wrong_prompt_gain") is not None:
        items.append(f"with noise that was made for another prompt: {signed(row['wrong_prompt_gain'], 3)}")
    items += [
        f"diversity of a prompt's images: {percent(row['diversity'])} of that of plain noise",
        f"root mean square of what the net adds to the noise: {fixed(row['change'], 3)}",
    ]
    return block("bullets", items)


def pictures(out: Path, held_out: HeldOut) -> Markup:
    """A row per prompt: plain noise, then the latest looks."""
    looks = sorted(path.name for path in (out / "pictures").iterdir() if path.name.isdecimal())[-LOOKS:]
    rows = [
        (prompt, [thumbnail(picture(out, name, prompt), label(name)) for name in (PLAIN, *looks)])
        for prompt in held_out.prompts[:PROMPTS]
    ]
    return macros("looks.html").looks(rows, PIXELS)


def label(name: str) -> str:
    return "plain noise" if name == PLAIN else f"step {int(name)}"
