"""Base models: load one, encode prompts, predict, sample, decode. The only room that talks to diffusers.

What a base model is stands in ``base.py``; each family fulfils it in a file of its own. The names below are for others.
The tiny model's parts are diffusers' too, see ``shapes/components.py``.
"""

from trainer.bases.adapted import Predictor, adapter_config, check_adapter, golden, predictor_of, save_memory
from trainer.bases.base import PARTS, Base, fingerprint, initial_noise, latent_shape, move
from trainer.bases.families import PRESETS, default_preset
from trainer.bases.load import load_base
from trainer.bases.memory import free_memory, take_turn, weight_bytes
from trainer.bases.prompts import Prompts, encode, join
from trainer.bases.sampling import (
    branches,
    check_guidance,
    decode,
    denoiser,
    encode_images,
    evaluations,
    generate,
    levels,
    predict,
    sample,
    shares_first,
)
from trainer.bases.schedules import SAMPLERS, SPACINGS, STOCHASTIC, Preset, Schedule
from trainer.bases.siblings import with_sibling
