"""``npnet inspect``: what a file or a dataset holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from npnet_core.adapter import AdapterConfig
from npnet_core.architectures import GoldenNet
from npnet_core.checkpoint import load_npnet, read_npnet
from npnet_core.config import NPNetConfig
from npnet_core.diagnostics import Whiteness, dependence, whiteness
from npnet_core.errors import InputError, escaped
from npnet_core.flops import net_flops
from npnet_core.golden import golden_noise
from npnet_core.model import NPNet
from npnet_core.npd import NPDReader
from npnet_core.origin import trained_on
from npnet_core.preference import KINDS, describe_scorer
from npnet_core.summary import dataset_overlap, render, render_overlap, summarise
from npnet_core.tensorfile import file_hash
from trainer.commands.options import argument, option
from trainer.data.file_kind import file_kind

SHOWN = 1000  # characters of what a file says of itself


@dataclass(frozen=True)
class Options:
    """Show what an NPNet, a preference model or a dataset holds.

    npnet inspect models/npnet/sdxl.safetensors
    npnet inspect models/preference/HPS_v2.1_compressed.pt
    npnet inspect --svd datasets/sdxl
    """

    path: Path = argument("an NPNet or preference model, or a dataset's folder")
    kind: str | None = option(None, f"of a preference model that does not tell: one of {', '.join(KINDS)}")
    svd: bool = option(False, "of a dataset: how far source and target share singular vectors (the paper's fig. 8)")
    skip_corrupt: bool = option(False, "of a dataset: leave damaged parts out")


def run(options: Options) -> None:
    what = file_kind(options.path)
    if what == "dataset":
        reader = NPDReader(options.path, skip_corrupt=options.skip_corrupt)
        show(render(summarise(reader)))
        if options.svd:
            show("\n" + render_overlap(*dataset_overlap(reader)))
        return
    if options.svd:
        raise InputError(f"--svd came for {options.path}, which is no dataset: name a dataset, or leave it out.")
    if what == "released pairs":
        raise InputError(f"{options.path} holds pairs in the released format: make a dataset of them, npnet convert.")
    rows = describe_npnet(options.path) if what == "npnet" else describe_scorer(options.path, options.kind)
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        show(f"{name:{width}}{value}")


def show(text: str) -> None:
    """Print lines, some of which strangers wrote."""
    print("\n".join(map(escaped, text.split("\n"))))


def describe_npnet(path: Path) -> dict[str, str]:
    """Name → text, in the order in which a person wants to read it."""
    file, npnet = read_npnet(path), load_npnet(path)
    c = file.config
    size, tokens = f"{c.resolution}x{c.resolution} at heart", f"{c.prompt_tokens} tokens"
    if c.any_size:
        size = f"any size, trained at {c.resolution}x{c.resolution}"
        tokens = f"any number of tokens, trained with {c.prompt_tokens}"
    rows = {
        "file": str(path),
        "sha256": file_hash(path),
        "layout": file.layout,
        "architecture": c.architecture,
        "base family": c.family,
        "noise": f"{c.channels} channels, {size}",
        "prompt": f"{tokens}, {c.prompt_dim} wide",
        "parameters": parameters(npnet) + (f"; {file.unused:,} more in the file, unused" if file.unused else ""),
    }
    if isinstance(c, AdapterConfig):
        rows["adapter"] = f"of {c.network}, " + (f"rank {c.rank}" if c.rank else "differences of all weights")
        rows["told"] = f"sigma {c.sigma:g}, t {c.t:g}, guidance {c.cfg:g} where the network is told one"
        rows["computation"] = "a prediction of the base model's network"
        return rows | recorded(file.metadata)
    rows["computation"] = f"{net_flops(c) / 1e9:.3g} GFLOP for one noise of that size and so many tokens"
    if isinstance(c, NPNetConfig) and c.text_term:
        rows["alpha"] = f"{npnet.text_weight().item():.3g} (in the file: {npnet.alpha.item():.4g})"
    if isinstance(c, NPNetConfig) and c.residual_branch:
        rows["beta"] = f"{npnet.beta.item():.3g}"
    prompts, white = random_figures(npnet)
    rows["prompt dependence"] = f"{prompts:.3g} (random prompt embeddings; 0 ignores the prompt)"
    rows["golden noise"] = (
        f"variance {white.variance:.3f}, correlation of neighbours {white.lag_x:+.3f} and {white.lag_y:+.3f}, power "
        f"{white.low:.3f} low and {white.high:.3f} high (white noise: 1, 0, 0, 1, 1)"
    )
    return rows | recorded(file.metadata)


def recorded(metadata: Mapping[str, str]) -> dict[str, str]:
    """What the file says of itself, long values (an adapter's config names every layer) by their beginning."""
    origin = trained_on(metadata)
    rows = {"origin": origin} if origin else {}
    for name, value in sorted(metadata.items()):
        more = f"… ({len(value):,} characters)" if len(value) > SHOWN else ""
        rows[name] = value[:SHOWN] + more
    return rows


def parameters(npnet: GoldenNet) -> str:
    total = sum(p.numel() for p in npnet.parameters())
    if not isinstance(npnet, NPNet):
        return f"{total:,}"
    branches = {
        "singular values": npnet.svd_branch,
        "text": npnet.text_term,
        "residual": npnet.residual_branch,
    }
    counts = {name: sum(p.numel() for p in b.parameters()) for name, b in branches.items() if b is not None}
    return f"{total:,} ({', '.join(f'{name} {count:,}' for name, count in counts.items())})"


def random_figures(npnet: GoldenNet) -> tuple[float, Whiteness]:
    """Prompt dependence and whiteness over four noises with two random embeddings of unit variance each, seed 0."""
    c, generator = npnet.config, torch.Generator().manual_seed(0)
    noise = torch.randn(4, c.channels, c.resolution, c.resolution, generator=generator)
    prompt, other = torch.randn(2, 4, c.prompt_tokens, c.prompt_dim, generator=generator)
    golden = golden_noise(npnet, noise, prompt)
    return dependence(noise, golden, golden_noise(npnet, noise, other)), whiteness(golden)
