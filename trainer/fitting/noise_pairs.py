"""The paper's objective: golden noise of a pair's source is to be its target (Algorithm 2, eq. 8)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from npnet_core.architectures import GoldenNet
from npnet_core.diagnostics import dependence
from npnet_core.errors import InputError
from npnet_core.npd import NPDReader
from trainer.data.embeddings import Embeddings, encode_missing
from trainer.data.prefetch import prefetch
from trainer.distributed import Process
from trainer.fitting.adapters import is_adapter, prepare_adapter
from trainer.fitting.build_net import NetInputs, common_resolution, starting_net
from trainer.fitting.folder import check_folder
from trainer.fitting.metrics import Losses, totals
from trainer.fitting.pair_batches import Batch, Batches
from trainer.fitting.selection import select, selecting
from trainer.fitting.settings import NoisePairs, Settings
from trainer.fitting.split import hold_out, limit_pairs

if TYPE_CHECKING:
    from trainer.data.encoder import Encoder


@dataclass(frozen=True)
class PairObjective:
    """:class:`trainer.fitting.objective.Objective` of a dataset; samples are the indices of its pairs."""

    unit: ClassVar[str] = "pair"
    pairs: NoisePairs
    reader: NPDReader
    chosen: list[int]  # pairs that the selection keeps; of these …
    training: list[int]
    validation: list[int]
    load: Batches

    @property
    def hash(self) -> str:
        return self.reader.hash

    def prepare(self, samples: Sequence[int]) -> list[Batch]:
        return self.load.by_size(samples)

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        golden = model(*batch.inputs)
        return Losses(batch.indices, squared_error(golden, batch.target), squared_error(batch.noise, batch.target))

    def metrics(self, name: str, total: Tensor) -> dict[str, float]:
        return errors(name, total)

    @torch.no_grad()
    def validate(self, npnet: GoldenNet, process: Process, batch: int, threads: int) -> dict[str, float]:
        """Over the held-out prompts, in fp32 and eval mode, as the net is used; none without such prompts."""
        if not self.validation:
            return {}
        npnet.eval()
        mine = self.validation[process.rank :: process.count]
        chunks = [mine[i : i + batch] for i in range(0, len(mine), batch)]
        losses = [self.losses(npnet, each) for sizes in prefetch(self.prepare, chunks, threads) for each in sizes]
        metrics = self.metrics("validation", process.sum(totals(losses)))
        if process.rank == 0:
            metrics["prompt_dependence"] = self.prompt_dependence(npnet)
        return metrics

    def prompt_dependence(self, npnet: GoldenNet, count: int = 8) -> float:
        """:func:`npnet_core.diagnostics.dependence` over noises of different held-out prompts, each prompt against the
        next; NaN where there is only one."""
        reader = self.reader
        by_prompt = {reader.records[i].key.prompt: i for i in reversed(self.validation)}
        first = reader.records[next(iter(by_prompt.values()))].key.shape
        indices = [i for i in by_prompt.values() if reader.records[i].key.shape == first][:count]
        if len(indices) < 2:
            return math.nan
        noise = reader.batch(indices)[0].float()
        prompts = [reader.records[i].key.prompt for i in indices]
        golden = self.load.golden(npnet, noise, prompts)
        return dependence(noise, golden, self.load.golden(npnet, noise, prompts[-1:] + prompts[:-1]))

    def show(self, npnet: GoldenNet, step: int, rows: Sequence[dict]) -> None:
        """The curve says it all."""

    def stop(self, rows: Sequence[dict]) -> None:
        """It has no judge that could be pleased."""

    def progress(self, metrics: dict[str, float]) -> str:
        return f"training: explains {metrics['train_explained']:.1%}"

    def conclusion(self, metrics: dict[str, float]) -> list[str]:
        if not metrics:
            return []
        explained = metrics["validation_explained"]
        sentences = [f"It explains {100 * explained:.2f} % of the change for prompts it never saw."]
        if explained <= 0:
            sentences.append("That is no better than leaving the noise alone: it needs more pairs or more steps.")
        return sentences

    def broken(self, samples: Sequence[int]) -> str:
        records = [self.reader.records[i] for i in samples[:3]]
        named = "; ".join(f"prompt {r.key.prompt!r}, seed {r.key.seed}, part {r.part.stem}" for r in records)
        return f"({named}): delete these parts and the dataset's embeddings, then collect and encode them again"

    def metadata(self) -> dict[str, str]:
        settings = self.reader.manifest.to_dict()
        recorded = settings.pop("recorded")
        return {
            "npnet.base_model": self.pairs.base or recorded["base_model"],
            "npnet.dataset": json.dumps({"sha256": self.hash, "pairs": len(self.reader), **settings}),
            "npnet.selection": json.dumps(
                {
                    "scorers": self.pairs.scorer,
                    "margins": self.pairs.margin,
                    "kept": len(self.chosen),
                    "trained_on": len(self.training),
                }
            ),
        }


def squared_error(golden: Tensor, target: Tensor) -> Tensor:
    """[B, C, H, W] twice → the loss of each pair (eq. 8), [B]."""
    return (golden.float() - target).square().mean((1, 2, 3))


def errors(name: str, total: Tensor) -> dict[str, float]:
    """Mean squared errors and the share of the target's change that the net explains, 1 − MSE / MSE of the identity."""
    error, identity, count = total.tolist()
    return {
        f"{name}_mse": error / count,
        f"{name}_identity_mse": identity / count,
        f"{name}_explained": 1 - error / identity if identity else math.nan,
    }


def prepare_pairs(settings: Settings, process: Process) -> tuple[Settings, GoldenNet, PairObjective]:
    """Everything that a fit on noise pairs works with.

    Returns:
        the settings with everything said that the dataset decides, the net, the objective.

    Raises:
        InputError: for a dataset, a folder or files that do not fit.
    """
    pairs, seed = settings.objective, settings.training.seed
    reader = NPDReader(pairs.dataset, skip_corrupt=pairs.skip_corrupt)
    pairs = dataclasses.replace(pairs, scorer=selecting(reader, pairs.scorer))
    settings = dataclasses.replace(settings, objective=pairs)
    check_folder(settings)
    chosen = select(reader, pairs.scorer, pairs.margin)
    training, validation = hold_out(reader, chosen, pairs.validation, seed)
    training = limit_pairs(reader, training, pairs.limit, seed)
    every = training + validation
    if is_adapter(settings.net):
        npnet, load = prepare_adapter(settings, process, reader, every)
    else:
        embeddings = embed(pairs, process, reader, every)
        npnet = starting_net(settings.net, net_inputs(reader, every, embeddings.shape), seed).to(process.device)
        load = Batches(reader, embeddings, npnet.config, process.device)
    return settings, npnet, PairObjective(pairs, reader, chosen, training, validation, load)


def embed(pairs: NoisePairs, process: Process, reader: NPDReader, indices: Sequence[int]) -> Embeddings | Encoder:
    """The prompt embeddings of these pairs, encoded now if they are not there yet; or what encodes them for each batch,
    where they are not to be kept."""
    base = pairs.base or reader.manifest.recorded.get("base_model")
    if not base:
        raise InputError(
            f"The dataset {pairs.dataset} does not say which base model it was made with: name it with --base."
        )
    model = {"family": reader.manifest.base_family, "device": process.device, "base_config": pairs.base_config}
    if not pairs.cache:
        from trainer.data.encoder import Encoder

        return Encoder(base, **model)
    prompts = [reader.records[i].key.prompt for i in indices]
    encode_missing(pairs.dataset, base, prompts, share=(process.rank, process.count), **model)
    process.wait()
    return Embeddings(pairs.dataset, base)


def net_inputs(reader: NPDReader, indices: Sequence[int], prompt_shape: tuple[int, int]) -> NetInputs:
    """What these pairs and prompt embeddings of shape (T, D) are to a net.

    Raises:
        InputError: for pairs that no net can take together.
    """
    shapes = [reader.records[i].key.shape for i in indices]
    channels = sorted({shape[0] for shape in shapes})
    if len(channels) > 1:
        raise InputError(
            f"The pairs in {reader.folder} have {' and '.join(map(str, channels))} channels: a net takes one number "
            "of them, so make a dataset for each."
        )
    resolution = common_resolution(shape[1:] for shape in shapes)
    return NetInputs(reader.manifest.base_family, channels[0], resolution, *prompt_shape)
