"""Small graphs with our nodes, to be run as they are or with changes."""

from __future__ import annotations


def small_graphs(npnet: str, scorer: str) -> dict[str, dict]:
    """Graphs in API format in which all of our nodes stand, by what they do: patch, redenoise, noise, pair and so on.

    `npnet` and `scorer` are names of files for the loaders.
    """
    base = {
        "model": ("TinyTestModel", {"seed": 0}),
        "positive": ("CLIPTextEncode", {"text": "a red fox", "clip": ["model", 1]}),
        "negative": ("CLIPTextEncode", {"text": "", "clip": ["model", 1]}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 48, "batch_size": 2}),
        "noise": ("RandomNoise", {"noise_seed": 7}),
        "npnet": ("NPNetLoad", {"npnet_name": npnet}),
        "scorer": ("NPNetScorerLoad", {"scorer_name": scorer, "kind": "auto"}),
        "images": ("EmptyImage", {"width": 40, "height": 32, "batch_size": 2, "color": 0xFF8040}),
    }
    sampled = {
        "model": ["patch", 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["latent", 0],
        "seed": 7,
        "steps": 1,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    golden = {"strength": 1.0, "long_prompt": "truncate"}
    custom = {
        "guider": ("BasicGuider", {"model": ["model", 0], "conditioning": ["positive", 0]}),
        "sampler": ("KSamplerSelect", {"sampler_name": "euler"}),
        "sigmas": ("BasicScheduler", {"model": ["model", 0], "scheduler": "normal", "steps": 3, "denoise": 1.0}),
    }
    pair = {
        "model": ["model", 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "noise": ["noise", 0],
        "sigmas": ["sigmas", 0],
        "latent_image": ["latent", 0],
        "cfg": 5.5,
        "inversion_cfg": 1.0,
        "rounds": 1,
        "depth": 1,
        "inversion": "exact",
    }
    saved = {"noise_pair": ["pair", 2], "prompt": "a red fox", "dataset": "pairs", "base_model": "", "sampling": ""}
    of_images = {"scorer": ["scorer", 0], "prompt": "a red fox"}
    both = {"source_images": ["images", 0], "target_images": ["images", 0], "margin": 0.0}
    made = {
        "patch": {
            "patch": ("NPNetModelPatch", {"model": ["model", 0], "npnet": ["npnet", 0], **golden}),
            "sampled": ("KSampler", sampled),
            "end": ("PreviewAny", {"source": ["sampled", 0]}),
        },
        "redenoise": {
            "patch": (
                "NPNetRedenoisePatch",
                {"model": ["model", 0], "cfg": 5.5, "inversion_cfg": 1.0, "depth": 1, "inversion": "exact"},
            ),
            "sampled": ("KSampler", sampled | {"steps": 2}),
            "end": ("PreviewAny", {"source": ["sampled", 0]}),
        },
        "noise": {
            **custom,
            "golden": (
                "NPNetNoise",
                {"npnet": ["npnet", 0], "noise": ["noise", 0], "conditioning": ["positive", 0], **golden},
            ),
            "sampled": (
                "SamplerCustomAdvanced",
                {"noise": ["golden", 0], "guider": ["guider", 0], "sampler": ["sampler", 0], "sigmas": ["sigmas", 0]}
                | {"latent_image": ["latent", 0]},
            ),
            "end": ("PreviewAny", {"source": ["sampled", 0]}),
        },
        "pair": {**custom, "pair": ("NPNetRedenoisePair", pair), "saved": ("NPNetSavePair", saved)},
        "filter": {"filter": ("NPNetHPSFilter", of_images | both)},
        "best": {"best": ("NPNetPickBest", of_images | {"images": ["images", 0], "k": 1})},
    }
    return {
        name: {node: {"class_type": kind, "inputs": dict(inputs)} for node, (kind, inputs) in (base | own).items()}
        for name, own in made.items()
    }


def pipeline_graph(pipeline: str) -> dict:
    """A picture by the model, text encoder and autoencoder of a small pipeline's folder."""
    nodes = {
        "loaded": ("NPNetSmallPipelineLoad", {"pipeline": pipeline}),
        "positive": ("CLIPTextEncode", {"text": "two large red squares on a dark ground", "clip": ["loaded", 1]}),
        "negative": ("CLIPTextEncode", {"text": "", "clip": ["loaded", 1]}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "sampled": (
            "KSampler",
            {"model": ["loaded", 0], "positive": ["positive", 0], "negative": ["negative", 0]}
            | {"latent_image": ["latent", 0], "seed": 7, "steps": 1, "cfg": 1.0, "sampler_name": "euler"}
            | {"scheduler": "normal", "denoise": 1.0},
        ),
        "decoded": ("VAEDecode", {"samples": ["sampled", 0], "vae": ["loaded", 2]}),
        "end": ("PreviewImage", {"images": ["decoded", 0]}),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
