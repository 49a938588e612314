"""Pooling of the grid of tokens, the baseline that learns nothing.

Shapes: B batch, N positions = H * W, rows first, D dim, W window.
"""

from torch import Tensor, nn, unflatten
from torch.nn.functional import avg_pool2d

from tlbench.models.tokenlearner import grid_of


class GridPool(nn.Module):
    """The mean over every whole window of the grid: [B, H*W, D] -> [B, H/W*W/W, D].

    Windows do not overlap; rows and columns beyond the last whole one are dropped.
    """

    def __init__(self, window: int, grid_size: tuple[int, int] | None = None) -> None:
        """`grid_size` is (height, width); None stands for any square grid."""
        super().__init__()
        self.window = window
        self.grid_size = grid_size

    def forward(self, x: Tensor) -> Tensor:
        grid = unflatten(x, 1, grid_of(x, self.grid_size, "GridPool"))
        pooled = avg_pool2d(grid.permute(0, 3, 1, 2), self.window)
        return pooled.flatten(2).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"window={self.window}, grid_size={self.grid_size}"
