"""Recipes by name: how the field trains, as settings that a suite can start from.

A suite says `recipe: NAME` beside its settings; what it sets itself comes before what
the recipe says, and a case keeps the settings only. Each value stands in the file that
its recipe names, at the commit of `docs/accuracy.md`, which also tells what such a file
says and a suite cannot.
"""

from typing import Any

Settings = dict[str, Any]

_INCEPTION_CROP: Settings = {"crop": "random", "min_area": 0.08, "flip": 0.5}
"""Szegedy et al. 2015 (arXiv 1409.4842), as both code bases have it."""

RECIPES: dict[str, Settings] = {
    # TokenLearner from scratch: scenic
    # projects/token_learner/configs/im1k_token_learner_config.py
    "scenic-in1k": {
        "batch_size": 4096,
        "optimizer": {
            "kind": "adamw",
            "learning_rate": 5e-3,
            "weight_decay": 0.3,
            "gradient_clipping": 1.0,
        },
        "fit": {
            "epochs": 90,
            "warmup_steps": 10_000,
            "schedule": "linear",
            "end_learning_rate": 1e-5,
            "loss": "sigmoid",
            "head_bias": -10.0,
        },
        "augment": _INCEPTION_CROP,
        "view": {
            "normalize": "imagenet",
            "crop_fraction": 224 / 256,
            "interpolation": "bicubic",
        },
    },
    # Strongly regularised ViT from scratch: scenic
    # projects/baselines/configs/imagenet/imagenet_augreg_vit_config.py
    "vit-augreg": {
        "batch_size": 4096,
        "drop_path_rate": 0.1,
        "optimizer": {
            "kind": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "gradient_clipping": 1.0,
        },
        "fit": {
            "epochs": 300,
            "warmup_steps": 10_000,
            "schedule": "cosine",
            "loss": "sigmoid",
            "head_bias": -6.9,
        },
        "augment": {
            **_INCEPTION_CROP,
            "rand_augment_layers": 2,
            "rand_augment_magnitude": 15,
            "mixup": 0.5,
        },
        "view": {"normalize": "half", "crop_fraction": 224 / 256},
    },
    # Fine-tuning on ImageNet at 384 pixels: vision_transformer
    # vit_jax/configs/common.py (rate, steps), big_vision configs/transfer.py (crops)
    "vit-finetune": {
        "batch_size": 512,
        "optimizer": {
            "kind": "sgd",
            "learning_rate": 0.03,
            "weight_decay": 0.0,
            "gradient_clipping": 1.0,
        },
        "fit": {
            "steps": 20_000,
            "warmup_steps": 500,
            "schedule": "cosine",
            "loss": "softmax",
        },
        "augment": {"crop": "corner", "flip": 0.5},
        "view": {"normalize": "half", "crop_fraction": 384 / 448},
    },
    # ViViT on Kinetics-400: ViViT paper (arXiv 2103.15691), appendix A; scenic
    # projects/vivit/configs/kinetics400
    "kinetics": {
        "batch_size": 64,
        "optimizer": {
            "kind": "sgd",
            "learning_rate": 0.1,
            "weight_decay": 0.0,
            "gradient_clipping": 1.0,
        },
        "fit": {
            "epochs": 30,
            "warmup_epochs": 2.5,
            "schedule": "cosine",
            "loss": "softmax",
        },
        "augment": {
            "crop": "corner",
            "min_scale": 0.9,
            "max_scale": 1.33,
            "flip": 0.5,
            "color_jitter": 0.8,
            "grayscale": 0.1,
        },
        "view": {
            "normalize": "half",
            "crop_fraction": 224 / 256,
            "frame_stride": 2,
            "temporal_clips": 4,
            "spatial_crops": 3,
        },
    },
}

_IN_PLACE_OF = {"epochs": "steps", "warmup_epochs": "warmup_steps"}
"""Of two fields of `fit` that say the same, the one that is read first."""


def settings_under(recipe: str, given: Settings) -> Settings:
    """The settings of a recipe without what would hide those that are given."""
    settings, fit = dict(RECIPES[recipe]), given.get("fit")
    if isinstance(fit, dict):
        hiding = {_IN_PLACE_OF[name] for name in fit if name in _IN_PLACE_OF}
        kept = {name: v for name, v in settings["fit"].items() if name not in hiding}
        settings["fit"] = kept
    return settings
