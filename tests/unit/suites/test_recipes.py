"""Recipes: what they hold, and what a suite that names one comes to."""

from textwrap import dedent
from typing import Any

import pytest

from tlbench.errors import SuiteError
from tlbench.suites.loader import parse_suite, repeat_suite
from tlbench.suites.names import parse_model
from tlbench.suites.recipes import RECIPES
from tlbench.suites.spec import Case, Trial

IMAGENET_TRAIN_SAMPLES = 1_281_167


def parse(text: str) -> tuple[Case, ...]:
    return parse_suite(dedent(text), "suite.yaml").cases


def make_case(recipe: str) -> Case:
    model = "ViViT-B/16x2" if recipe == "kinetics" else "ViT-B/16"
    data = "kinetics-400" if recipe == "kinetics" else "imagenet-1k"
    return Case.model_validate(
        {"model": parse_model(model), "mode": "fit", "data": data, **RECIPES[recipe]}
    )


def dig(case: Case, path: str) -> Any:
    value: Any = case
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(
    ("recipe", "published"),
    [
        (
            "scenic-in1k",
            {
                "batch_size": 4096,
                "optimizer.kind": "adamw",
                "optimizer.learning_rate": 0.005,
                "optimizer.weight_decay": 0.3,
                "optimizer.gradient_clipping": 1,
                "fit.epochs": 90,
                "fit.steps": None,
                "fit.warmup_steps": 10_000,
                "fit.schedule": "linear",
                "fit.end_learning_rate": 0.00001,
                "fit.loss": "sigmoid",
                "fit.label_smoothing": 0,
                "fit.head_bias": -10,
                "fit.ema_decay": 0,
                "drop_path_rate": 0,
                "augment.crop": "random",
                "augment.min_area": 0.08,
                "augment.flip": 0.5,
                "augment.mixup": 0,
                "augment.rand_augment_layers": 0,
                "view.normalize": "imagenet",
                "view.crop_fraction": 0.875,
                "view.interpolation": "bicubic",
            },
        ),
        (
            "vit-augreg",
            {
                "batch_size": 4096,
                "optimizer.kind": "adamw",
                "optimizer.learning_rate": 0.001,
                "optimizer.weight_decay": 0.1,
                "optimizer.gradient_clipping": 1,
                "fit.epochs": 300,
                "fit.warmup_steps": 10_000,
                "fit.schedule": "cosine",
                "fit.end_learning_rate": 0,
                "fit.loss": "sigmoid",
                "fit.head_bias": -6.9,
                "drop_path_rate": 0.1,
                "augment.crop": "random",
                "augment.flip": 0.5,
                "augment.rand_augment_layers": 2,
                "augment.rand_augment_magnitude": 15,
                "augment.mixup": 0.5,
                "view.normalize": "half",
                "view.crop_fraction": 0.875,
            },
        ),
        (
            "vit-finetune",
            {
                "batch_size": 512,
                "optimizer.kind": "sgd",
                "optimizer.learning_rate": 0.03,
                "optimizer.weight_decay": 0,
                "optimizer.gradient_clipping": 1,
                "fit.steps": 20_000,
                "fit.warmup_steps": 500,
                "fit.schedule": "cosine",
                "fit.loss": "softmax",
                "fit.head_bias": 0,
                "augment.crop": "corner",
                "augment.min_scale": 1,
                "augment.max_scale": 1,
                "augment.flip": 0.5,
                "view.normalize": "half",
                "view.crop_fraction": 384 / 448,
            },
        ),
        (
            "kinetics",
            {
                "batch_size": 64,
                "optimizer.kind": "sgd",
                "optimizer.learning_rate": 0.1,
                "optimizer.weight_decay": 0,
                "optimizer.gradient_clipping": 1,
                "fit.epochs": 30,
                "fit.warmup_epochs": 2.5,
                "fit.schedule": "cosine",
                "fit.loss": "softmax",
                "fit.label_smoothing": 0,
                "augment.crop": "corner",
                "augment.min_scale": 0.9,
                "augment.max_scale": 1.33,
                "augment.flip": 0.5,
                "augment.color_jitter": 0.8,
                "augment.grayscale": 0.1,
                "augment.mixup": 0,
                "view.normalize": "half",
                "view.frame_stride": 2,
                "view.temporal_clips": 4,
                "view.spatial_crops": 3,
                "view.crop_fraction": 0.875,
            },
        ),
    ],
)
def test_a_recipe_holds_what_was_published(
    recipe: str, published: dict[str, Any]
) -> None:
    case = make_case(recipe)
    assert {path: dig(case, path) for path in published} == published


def test_the_steps_of_scenic_are_those_that_its_epochs_make() -> None:
    case = make_case("scenic-in1k")
    steps = case.fit.epochs * (IMAGENET_TRAIN_SAMPLES // case.global_batch_size)
    assert steps == 28_080


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_case_keeps_the_settings_of_its_recipe_and_nothing_else(recipe: str) -> None:
    expected = make_case(recipe)
    model = "ViViT-B/16x2" if recipe == "kinetics" else "ViT-B/16"
    (case,) = parse(f"""
        models: {model}
        mode: fit
        data: {expected.data}
        recipe: {recipe}
    """)
    assert case == expected
    assert "recipe" not in case.canonical()
    repeated = repeat_suite(Trial(case, repeat=0, position=0, seed=0), 60)
    assert "recipe" not in repeated


def test_what_the_suite_says_comes_before_its_recipe() -> None:
    (case,) = parse("""
        models: ViT-Ti/16
        mode: fit
        data: digits
        recipe: vit-augreg
        batch_size: 32
        optimizer: {learning_rate: 0.5}
        fit: {loss: softmax}
        drop_path_rate: 0.0
    """)
    assert (case.batch_size, case.drop_path_rate) == (32, 0)
    assert (case.optimizer.learning_rate, case.optimizer.weight_decay) == (0.5, 0.1)
    assert (case.fit.loss, case.fit.head_bias) == ("softmax", -6.9)


@pytest.mark.parametrize(
    ("recipe", "given", "expected"),
    [
        ("vit-finetune", "epochs: 3", {"epochs": 3, "steps": None}),
        ("vit-finetune", "warmup_epochs: 0.5", {"warmup_steps": None, "steps": 20_000}),
        ("kinetics", "steps: 7", {"steps": 7, "warmup_epochs": 2.5}),
        ("vit-finetune", "warmup_steps: 0", {"warmup_steps": 0}),
    ],
)
def test_what_a_recipe_says_in_other_words_does_not_hide_what_is_given(
    recipe: str, given: str, expected: dict[str, Any]
) -> None:
    model = "ViViT-B/16x2" if recipe == "kinetics" else "ViT-B/16"
    (case,) = parse(f"""
        models: {model}
        mode: fit
        data: mine
        classes: 3
        recipe: {recipe}
        fit: {{{given}}}
    """)
    assert {name: getattr(case.fit, name) for name in expected} == expected


def test_recipes_can_be_an_axis() -> None:
    cases = parse("""
        models: ViT-B/16
        mode: fit
        data: imagenet-1k
        recipe: [scenic-in1k, vit-augreg]
        optimizer: {weight_decay: [0.2, 0.4]}
    """)
    found = [(c.optimizer.learning_rate, c.optimizer.weight_decay) for c in cases]
    assert found == [(5e-3, 0.2), (5e-3, 0.4), (1e-3, 0.2), (1e-3, 0.4)]


def test_an_included_grid_and_a_scale_can_have_a_recipe_of_their_own() -> None:
    text = dedent("""
        models: ViT-B/16
        mode: fit
        data: imagenet-1k
        recipe: scenic-in1k
        include:
          - recipe: vit-finetune
        scales:
          small: {recipe: vit-augreg, batch_size: 8}
    """)
    rates = [c.optimizer.learning_rate for c in parse_suite(text, "s.yaml").cases]
    assert rates == [5e-3, 0.03]
    scaled = parse_suite(text, "s.yaml", scale="small").cases
    assert [(c.batch_size, c.optimizer.learning_rate) for c in scaled] == [
        (8, 1e-3),
        (8, 0.03),
    ]


def test_an_exclusion_sees_what_the_recipe_says() -> None:
    cases = parse("""
        models: ViT-B/16
        mode: fit
        data: imagenet-1k
        recipe: [scenic-in1k, vit-augreg]
        exclude:
          - fit: {epochs: 300}
    """)
    assert [case.fit.epochs for case in cases] == [90]


def test_a_mode_that_does_not_train_takes_no_more_than_it_reads() -> None:
    cases = parse("""
        models: ViT-B/16
        mode: infer
        recipe: [scenic-in1k, vit-augreg]
    """)
    assert cases == (
        Case(model=parse_model("ViT-B/16"), mode="infer", batch_size=4096),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "recipe: vit-augregg",
            "suite.yaml:5: recipe: 'vit-augregg' is not a recipe"
            "; did you mean 'vit-augreg'?",
        ),
        (
            "recipe: {a: 1}",
            "suite.yaml:5: recipe: a mapping is not a recipe; known are",
        ),
        (
            "recipe: kinetics\nparallelism: {world_size: 3}",
            "batch_size=64 does not divide into 3 parts",
        ),
    ],
)
def test_a_recipe_that_does_not_do_is_told_by_its_line(
    given: str, message: str
) -> None:
    text = "# a suite\nmodels: ViT-B/16\nmode: fit\ndata: digits\n" + given
    with pytest.raises(SuiteError) as caught:
        parse_suite(text, "suite.yaml")
    assert message in str(caught.value)


def test_a_mistake_in_what_a_recipe_says_is_told_at_the_recipe() -> None:
    text = dedent("""\
        models: ViT-B/16
        mode: fit
        data: digits
        recipe: scenic-in1k
        parallelism: {world_size: 3}
    """)
    with pytest.raises(SuiteError, match=r"suite\.yaml:4: recipe: batch_size=4096"):
        parse_suite(text, "suite.yaml")
