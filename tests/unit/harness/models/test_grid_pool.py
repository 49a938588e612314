"""Pooling of the grid against means taken window by window."""

import pytest
import torch
from torch import Tensor

from tlbench.models.grid_pool import GridPool


def by_hand(x: Tensor, height: int, width: int, window: int) -> Tensor:
    grid = x.view(len(x), height, width, -1)
    return torch.stack(
        [
            grid[:, row : row + window, column : column + window].mean(dim=(1, 2))
            for row in range(0, height - window + 1, window)
            for column in range(0, width - window + 1, window)
        ],
        dim=1,
    )


@pytest.mark.parametrize(
    ("height", "width", "window", "left"),
    [
        (4, 4, 2, 4),
        (5, 5, 2, 4),
        (3, 7, 2, 3),
        (6, 3, 3, 2),
        (2, 3, 1, 6),
        (1, 1, 1, 1),
    ],
)
def test_each_token_is_the_mean_of_its_whole_window(
    height: int, width: int, window: int, left: int
) -> None:
    x = torch.randn(2, height * width, 5)
    pooled = GridPool(window, (height, width))(x)
    assert pooled.shape == (2, left, 5)
    assert torch.allclose(pooled, by_hand(x, height, width, window), atol=1e-6)


def test_without_a_grid_any_square_one_is_taken() -> None:
    pool, x = GridPool(2), torch.randn(1, 36, 3)
    assert torch.equal(pool(x), GridPool(2, (6, 6))(x))
    assert pool(torch.randn(1, 16, 3)).shape == (1, 4, 3)


def test_positions_that_make_no_square_are_refused() -> None:
    message = r"10 positions make no square grid; give GridPool their grid_size"
    with pytest.raises(ValueError, match=message):
        GridPool(2)(torch.randn(1, 10, 4))


def test_positions_that_do_not_fill_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"grid_size=\(2, 3\) has 6.* has 9"):
        GridPool(2, (2, 3))(torch.randn(1, 9, 4))


def test_nothing_is_learned() -> None:
    assert not list(GridPool(2).parameters())
    assert repr(GridPool(2, (4, 4))) == "GridPool(window=2, grid_size=(4, 4))"
