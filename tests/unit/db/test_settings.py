"""The settings of a stored case are those of the case that it was stored from."""

import pytest

from tlbench.db.settings import flatten, settings
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"mode": "profile"},
        {"batch_size": "max", "memory_limit_gib": 2.0},
        {"parallelism": {"world_size": 8, "nodes": 2}, "batch_size": 16},
        {"mode": "fit", "data": "digits", "fit": {"epochs": 3}},
        {"model": "ViT-B/16+TL8v1mean@6"},
        {"model": "ViViT-L/16x2:encoder24"},
        {"model": "ViT-L/16@512+pool4@9,18"},
        {"model": "ViT-B/16+random(keep=8,place=6)"},
    ],
)
def test_the_same_as_of_the_case_itself(content: dict[str, object]) -> None:
    model = parse_model(str(content.get("model", "ViT-Ti/16")))
    case = Case.model_validate({"mode": "infer", **content, "model": model})
    whole = dict(flatten(case.model_dump(mode="json", exclude={"model": {"name"}})))
    assert settings(case.canonical()) == whole
