"""Where sampling starts: the seed's own noise, or what a method makes of it. Everything else stays the same, except in
the baselines, which start from the seed's own noise and sample it otherwise.

The paper compares standard, inversion, repaint and NPNet. Wrong-prompt controls are ours: they ask whether a gain has
to do with the prompt at all.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from npnet_core.adapter import AdapterConfig
from npnet_core.architectures import GoldenNet
from npnet_core.errors import InputError
from npnet_core.golden import noise_generator
from npnet_core.redenoising import check_levels, ddim
from trainer import bases
from trainer.bases import Base, Prompts
from trainer.collecting.recipe import Recipe
from trainer.collecting.redenoising import REDENOISING, Redenoising, check_redenoising
from trainer.evaluation import baselines
from trainer.evaluation.baselines import Baseline, read_baseline
from trainer.evaluation.sampling_settings import Setting

OTHERS = ("standard", "inversion", "repaint")
CONTROL = "wrong-prompt-"  # prefix of the methods whose noise was made for another prompt
NAMES = (*OTHERS, "npnet", "wrong-prompt", *baselines.NAMES)

Start = Callable[[Base, Prompts, Tensor, Setting], Tensor]
"""``start(base, prompts, noise, setting)``: noise [B, C, h, w] of unit variance and B prompts → noise like it."""


@dataclass(frozen=True)
class Method:
    """A way to start.

    Attributes:
        name: under which images and scores are kept.
        description: one sentence.
        start: what it does to the noise.
        wrong_prompt: whether ``start`` is told another prompt than the image is made of.
        npnet: the net that it uses, if it does.
        weights: that net's :func:`weight_hash`.
        baseline: how its sampling differs from the setting's.
    """

    name: str
    description: str
    start: Start
    wrong_prompt: bool = False
    npnet: GoldenNet | None = None
    weights: str | None = None
    baseline: Baseline = Baseline()


def weight_hash(npnet: GoldenNet) -> str:
    """SHA-256 of a net's config and weights."""
    digest = hashlib.sha256(json.dumps(npnet.config.to_dict(), sort_keys=True).encode())
    for value in npnet.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def standard(base: Base, prompts: Prompts, noise: Tensor, setting: Setting) -> Tensor:
    """The noise itself."""
    return noise


def inversion(base: Base, prompts: Prompts, noise: Tensor, setting: Setting, redenoising: Redenoising) -> Tensor:
    """Re-denoised between the first levels of the setting's schedule, or of the recipe's own: the target that nets
    learn, used directly."""
    return redenoising.redenoised(base, prompts, noise, redenoising.on(setting.schedule)).target


def repaint(base: Base, prompts: Prompts, noise: Tensor, setting: Setting, rounds: int = 1) -> Tensor:
    """One denoising step at the setting's guidance, then fresh noise back to the start, ``rounds`` times.

    The paper names RePaint among its methods and gives no settings: this definition is ours. With levels (α₀, σ₀) and
    (α₁, σ₁) the way back is RePaint's, x₀ = (α₀/α₁) x₁ + √(σ₀² − (α₀/α₁)² σ₁²) ε. ε comes from a generator seeded by a
    checksum of the image's noise, so an image does not depend on its batch.
    """
    start, end = bases.levels(base, setting.schedule, tuple(noise.shape[1:]))[:2]
    denoise = bases.denoiser(base, prompts)
    generators = [noise_generator(image.to("cpu", torch.float32)) for image in noise]
    x, ratio = noise.to(base.device), start.alpha / end.alpha
    sigma = math.sqrt(start.sigma**2 - (ratio * end.sigma) ** 2)
    for _ in range(rounds):
        lower = ddim(x, denoise(x, start, setting.cfg), start, end)
        eps = torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators])
        x = ratio * lower + sigma * eps.to(x)
    return x


def golden(base: Base, prompts: Prompts, noise: Tensor, setting: Setting, npnet: GoldenNet) -> Tensor:
    """The net's golden noise."""
    return bases.golden(base, npnet, noise, prompts)


def choose_methods(
    names: Sequence[str],
    npnets: Mapping[str, GoldenNet],
    redenoising: Redenoising = REDENOISING,
    repaint_rounds: int = 1,
) -> list[Method]:
    """The methods of a comparison, ``standard`` always first.

    Args:
        names: some of :data:`NAMES`. ``npnet`` stands for every net, under its own name; ``wrong-prompt`` for a control
            of every net and of inversion, where those are asked for; the baselines' have numbers in them, such as
            ``cfg-5.5-first-2``.
        npnets: name → net.

    Raises:
        InputError: for a name that is not known, nets without ``npnet`` or the other way round, a net that is named
            like another method, or nothing to compare with standard.
    """
    others = {name: baseline for name in dict.fromkeys(names) if (baseline := read_baseline(name)) is not None}
    if unknown := sorted(set(names) - {*OTHERS, "npnet", "wrong-prompt"} - set(others)):
        raise InputError(f"There is no method {', '.join(unknown)}: choose some of {', '.join(NAMES)}.")
    if "npnet" in names and not npnets:
        raise InputError("Method npnet came without a net: name a file with --npnet, or choose other --methods.")
    if npnets and "npnet" not in names:
        raise InputError(f"{len(npnets)} nets came that no method uses: add npnet to --methods, or leave them out.")
    if taken := sorted(name for name in npnets if name in OTHERS or name.startswith(CONTROL) or read_baseline(name)):
        raise InputError(f"A net is named {', '.join(taken)} as a method is: give it another name, NAME=FILE.")
    if repaint_rounds < 1:
        raise InputError(f"Repainting {repaint_rounds} times changes nothing: use at least 1 round.")
    where = "" if isinstance(redenoising, Recipe) else " on the image's own schedule"  # a recipe names its own
    down = f"re-denoised{where} ({redenoising})"
    methods, controls = [], []
    if "inversion" in names:
        start = partial(inversion, redenoising=redenoising)
        methods.append(Method("inversion", f"The noise {down}.", start))
        controls.append(Method(f"{CONTROL}inversion", f"Control: {down} for another prompt of the set.", start, True))
    if "repaint" in names:
        methods.append(
            Method(
                "repaint",
                f"Our definition, since the paper gives none: one denoising step, fresh noise back to the start, "
                f"{repaint_rounds} time{'s' * (repaint_rounds > 1)}.",
                partial(repaint, rounds=repaint_rounds),
            )
        )
    for name, npnet in npnets.items() if "npnet" in names else ():
        start, weights = partial(golden, npnet=npnet), weight_hash(npnet)
        methods.append(Method(name, f"Golden noise of the net {name}.", start, False, npnet, weights))
        text = f"Control: golden noise of the net {name} for another prompt of the set."
        controls.append(Method(f"{CONTROL}{name}", text, start, True, npnet, weights))
    methods += [Method(name, other.description, standard, baseline=other) for name, other in others.items()]
    if not methods:
        raise InputError("There is nothing to compare standard with: add npnet, inversion or repaint to --methods.")
    return [
        Method("standard", "The seed's own noise.", standard),
        *methods,
        *(controls if "wrong-prompt" in names else ()),
    ]


def check_methods(methods: Sequence[Method], base: Base, settings: Sequence[Setting], redenoising: Redenoising) -> None:
    """Refuse, before anything is sampled, what could not be.

    Raises:
        InputError: for a net of another kind of base model, schedules that cannot be gone down and up on, or a baseline
            that the settings do not have room for.
    """
    for method in methods:
        if method.npnet is not None:
            c = method.npnet.config
            ours, theirs = (c.family, c.channels, c.prompt_dim), (base.family, base.channels, base.prompt_dim)
            if ours != theirs:
                net, model = ("{} models ({} channels, prompts {} wide)".format(*each) for each in (ours, theirs))
                raise InputError(
                    f"The net of method {method.name} is for {net} and {base.source} is one of the {model}: name a net "
                    "that was made for it."
                )
            if isinstance(c, AdapterConfig):
                bases.check_adapter(base, c, method.name)
        elif method.start is standard:
            for setting in settings:
                bases.evaluations(base, method.baseline.schedule(setting))  # makes a scheduler of it
                scales = method.baseline.guidance(base, setting)
                for cfg in scales if isinstance(scales, list) else [scales]:
                    bases.check_guidance(base, cfg)
        else:
            if method.name != "repaint":
                check_redenoising(base)
            for setting in settings:
                way, schedule = (), setting.schedule
                if method.name != "repaint":
                    way, schedule = (redenoising.inversion, redenoising.depth), redenoising.on(schedule)
                shape = bases.latent_shape(base, setting.height, setting.width)
                check_levels(bases.levels(base, schedule, shape), *way)
