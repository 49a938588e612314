"""Torch's count of the operations, and the check of the closed form against it."""

import pytest
import torch

from tlbench.errors import TrialError
from tlbench.measure.flops import check_cost, count_macs
from tlbench.models import cost
from tlbench.models.vit import build_vit
from tlbench.suites.spec import Attention, ModelSpec, TokenLearnerSpec

B16 = ModelSpec(patch_size=16, embed_dim=768, depth=12, num_heads=12, mlp_dim=3072)


def test_b16_has_the_published_number_of_multiply_adds() -> None:
    assert check_cost(B16, 1000) == (17_471_649_792, 17_471_649_792)


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_attention_is_counted_fused_or_not(attention: Attention) -> None:
    with torch.device("meta"):
        model = build_vit(B16, 1000, attention=attention)
    with_attention = count_macs(model, 224)
    products = 12 * 2 * 196**2 * 768
    projections = 12 * 196 * (4 * 768**2 + 2 * 768 * 3072)
    assert with_attention == projections + products + 196 * 768**2 + 768_000


@pytest.mark.parametrize(
    ("version", "fuse"), [("v1", False), ("v1.1", False), ("v1.1", True)]
)
@pytest.mark.parametrize(("num_tokens", "place"), [(8, 0), (16, 3), (8, 6), (16, 9)])
def test_both_counts_are_the_same_at_every_place(
    num_tokens: int, place: int, version: str, fuse: bool
) -> None:
    learner = TokenLearnerSpec.model_validate(
        {"place": place, "num_tokens": num_tokens, "version": version, "fuse": fuse}
    )
    check = check_cost(B16.model_copy(update={"token_learner": learner}), 1000)
    assert check.closed_form == check.counted


def test_counts_too_far_apart_are_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cost, "macs", lambda *_: 17_454_000_000)
    message = "gives 17454000000 .* counts 17471649792: more than 0.1% apart"
    with pytest.raises(TrialError, match=message):
        check_cost(B16, 1000)
