"""FID: how far images are from those of a folder, as two clouds of Inception features. An extra, ``[fid]``.

The network is pytorch-fid's, whose weights are TensorFlow's; pictures are made 299x299 as clean-fid does it, by
antialiased bicubic resizing without rounding. The covariance of 2048 features needs thousands of images: with fewer FID
is too high, for all methods alike, so compare it only between methods with equally many images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from npnet_core.errors import InputError
from npnet_core.hidden import hidden
from npnet_core.tensorfile import read_tensors
from trainer.data.images import read_image
from trainer.data.prefetch import prefetch

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
PICTURES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".jp2", ".ppm", ".pgm", ".tga"),
)
SIDE = 299
BATCH = 32


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """‖μ_a − μ_b‖² + Tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) of two sets of features.

    With centred features A [n, D] and B [m, D] the last trace is the sum of the singular values of
    A Bᵀ / √((n − 1)(m − 1)): no root of a matrix is needed.

    Args:
        a, b: [n, D] and [m, D], at least two rows each.
    """
    a, b = a.double(), b.double()
    mean = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    return (mean.square().sum() + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()).item()


def find_pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name; names that begin with a dot are others'.

    Raises:
        InputError: if there are fewer than two.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: name one with the pictures that FID compares with.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not hidden(path.name))
    if len(found) < 2:
        raise InputError(f"{folder} has {len(found)} pictures ({', '.join(PICTURES)}): FID needs at least 2.")
    return found


def load_inception(weights: Path | None, device: str | torch.device = "cpu") -> nn.Module:
    """The Inception of FID: [B, 3, 299, 299] in −1..1 → [B, 2048]. Nothing is downloaded.

    Raises:
        InputError: if pytorch-fid is not installed; if the weights are missing or others.
    """
    try:
        from pytorch_fid import inception as blocks
        from torchvision.models import inception_v3
    except ImportError as error:
        raise InputError('FID needs the package pytorch-fid: pip install "npnet-golden-noise[fid]".') from error
    if weights is None or not Path(weights).is_file():
        raise InputError(
            f"FID needs Inception's weights and {weights or 'no file'} came: get {WEIGHTS} from the releases of "
            "mseitzer/pytorch-fid on GitHub and name it with --fid-weights."
        )
    with torch.device("meta"):
        network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        network.Mixed_5b = blocks.FIDInceptionA(192, pool_features=32)
        network.Mixed_5c = blocks.FIDInceptionA(256, pool_features=64)
        network.Mixed_5d = blocks.FIDInceptionA(288, pool_features=64)
        network.Mixed_6b = blocks.FIDInceptionC(768, channels_7x7=128)
        network.Mixed_6c = blocks.FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6d = blocks.FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6e = blocks.FIDInceptionC(768, channels_7x7=192)
        network.Mixed_7b = blocks.FIDInceptionE_1(1280)
        network.Mixed_7c = blocks.FIDInceptionE_2(2048)
    tensors, _ = read_tensors(weights)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise InputError(f"{weights} does not hold the weights of FID's Inception: get {WEIGHTS}.") from error
    network.fc = nn.Identity()
    return network.requires_grad_(False).eval().to(device)


@torch.no_grad()
def inception_features(network: nn.Module, paths: Sequence[Path], device: torch.device, label: str) -> Tensor:
    """[N, 2048] on the CPU, with a progress bar."""
    chunks = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    features = []
    with tqdm(total=len(paths), desc=label, unit="image", leave=False) as progress:
        for pictures in prefetch(lambda chunk: torch.stack([square(read_image(path)) for path in chunk]), chunks, 2):
            features.append(network(pictures.to(device)).cpu())
            progress.update(len(pictures))
    return torch.cat(features)


def square(image: Tensor) -> Tensor:
    """[H, W, 3] in 0..1 → [3, 299, 299] in −1..1, resized and scaled as clean-fid does it."""
    import numpy as np
    from PIL import Image

    channels = [
        np.asarray(Image.fromarray(channel).resize((SIDE, SIDE), Image.BICUBIC))
        for channel in (image * 255).movedim(-1, 0).contiguous().numpy()
    ]
    return (torch.from_numpy(np.stack(channels)).clamp(0, 255) - 128) / 128


def fid_of(
    rows: Sequence[dict], out: Path, inception: torch.nn.Module, reference: Sequence[Path], device: torch.device
) -> dict[str, dict[str, float]]:
    """Setting → method → FID against the reference."""
    images: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        images.setdefault((row["setting"], row["method"]), {})[row["image"]] = None
    expected = inception_features(inception, reference, device, "FID, reference")
    fid: dict[str, dict[str, float]] = {}
    for (setting, method), paths in images.items():
        if len(paths) > 1:
            features = inception_features(inception, [out / path for path in paths], device, f"FID, {method}")
            fid.setdefault(setting, {})[method] = frechet_distance(features, expected)
    return fid
