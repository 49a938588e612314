"""Weights of one model as the start of another: of larger images, or of clips.

Sources: scenic `projects/vivit/model_utils.py:initialise_from_train_state` for clips;
positions are resampled as timm does it.

Shapes: M positions in the weights, N of one time step of the model, T time steps,
D dim, C channels, P patch size, t frames of a tubelet.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tlbench.errors import TrialError
from tlbench.models.timm_vit import vision_transformer_class
from tlbench.models.vivit import FactorisedEncoder, TubeletEmbed

Tubelets = Literal["central", "inflation"]
Interpolation = Literal["bicubic", "bilinear"]
"""How timm resamples positions: bicubic with antialiasing in state dicts of torch,
bilinear without it in the files of JAX."""

KERNEL = "patch_embed.proj.weight"
POSITIONS = "pos_embed"
CLASS_TOKEN = "cls_token"
HEAD = frozenset({"head.weight", "head.bias"})
OVER_TIME = "temporal."
"""What the transformer over time of a factorised encoder begins its names with."""
WRAPPERS = frozenset({"spatial", "block", "module"})
"""Modules around those of a plain ViT, which have their own names inside."""


@dataclass(frozen=True)
class Transfer:
    """What became of the weights, and of the model that was started from them."""

    not_set: tuple[str, ...]
    """Parameters of the model that the weights have nothing for."""
    left_out: tuple[str, ...]
    """Weights that the model has no place for."""
    resampled: str | None
    """From which grid of positions to which; None: from none."""


@torch.no_grad()
def load_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    tubelets: Tubelets = "central",
    interpolation: Interpolation = "bicubic",
) -> Transfer:
    """Start `model` from the state dict of a ViT or a ViViT, as far as that goes.

    Positions are resampled to the model's grid, and those of an image repeated at every
    time step; the position of a class token is kept apart. The kernel of the tubelets
    is that of the patches at frame t // 2 and zero elsewhere (`central`), or a t-th of
    it at every frame (`inflation`; Carreira & Zisserman 2017, arXiv 1705.07750).
    Attention over time (model 3) starts as a copy of that over space, as in the public
    code; the ViViT paper starts it at zero. The head is left alone where the classes
    differ in number.

    Raises:
        TrialError: The weights of a parameter do not fit it; nothing is set.
    """
    own = model.state_dict()  # these share the memory of the model
    source = _Source(weights)
    source.check_kind(own)
    fitter = _Fitter(model, source, tubelets, interpolation)
    given = source.given_for(own)
    fitted = {name: fitter.fit(name, weights[given[name]], own[name]) for name in given}
    for name, value in fitted.items():
        own[name].copy_(value)
    taken = set(given.values())
    return Transfer(
        not_set=tuple(name for name in own if name not in given),
        left_out=tuple(name for name in weights if name not in taken),
        resampled=fitter.resampled,
    )


class _Source:
    """Weights, found by the names that the parameters of another model have."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights
        self._plain = {_plain_name(name): name for name in weights}

    def plain(self, name: str) -> Tensor | None:
        """The weights that are called so in a plain ViT."""
        given = self._plain.get(name)
        return None if given is None else self.weights[given]

    @property
    def repeats_over_time(self) -> bool:
        """Whether its positions are those of one image, or of every time step alike."""
        kernel = self.plain(KERNEL)
        return (kernel is not None and kernel.ndim == 4) or any(
            name.startswith(OVER_TIME) for name in self._plain
        )

    def check_kind(self, own: Mapping[str, Tensor]) -> None:
        kernel = self.plain(KERNEL)
        if kernel is None and own.keys() != self.weights.keys():
            first = ", ".join(list(self.weights)[:3])
            raise TrialError(
                f"these are not the weights of a ViT: {KERNEL} is not among their"
                f" {len(self.weights)} names ({first}, ...)"
            )
        ranks = {p.ndim for name, p in own.items() if _plain_name(name) == KERNEL}
        if kernel is not None and kernel.ndim == 5 and ranks == {4}:
            raise TrialError(
                "these are the weights of a model of clips, and the model reads images"
            )

    def given_for(self, own: Mapping[str, Tensor]) -> dict[str, str]:
        """For each parameter that there are weights for, what they are called."""
        found = {name: self._given_for(name) for name in own}
        return {
            name: given
            for name, given in found.items()
            if given is not None
            and not (
                _plain_name(name) in HEAD
                and self.weights[given].shape != own[name].shape
            )
        }

    def _given_for(self, name: str) -> str | None:
        if name in self.weights:
            return name
        plain = _plain_name(name)
        over_space = plain.replace(".time_attn.", ".attn.")
        return self._plain.get(plain) or self._plain.get(over_space)


def _plain_name(name: str) -> str:
    """What a parameter is called where nothing is wrapped around its module."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


class _Fitter:
    """Brings weights into the shapes of one model's parameters."""

    def __init__(
        self,
        model: nn.Module,
        source: _Source,
        tubelets: Tubelets,
        interpolation: Interpolation,
    ) -> None:
        self.vit: Any = model.spatial if isinstance(model, FactorisedEncoder) else model
        self.is_factorised_encoder = isinstance(model, FactorisedEncoder)
        self.source = source
        self.tubelets = tubelets
        self.interpolation = interpolation
        self.resampled: str | None = None

    def fit(self, name: str, value: Tensor, parameter: Tensor) -> Tensor:
        plain = _plain_name(name)
        if plain == KERNEL and (value.ndim, parameter.ndim) == (4, 5):
            value = _tubelet_kernel(value, parameter.shape[2], self.tubelets)
        if plain == POSITIONS and self._is_other_grid(value, parameter):
            value = self._positions(value, parameter)
        if value.shape != parameter.shape:
            raise TrialError(
                f"{name} is {list(parameter.shape)} in the model, and the weights have"
                f" {list(value.shape)} for it"
            )
        return value

    def _is_other_grid(self, positions: Tensor, parameter: Tensor) -> bool:
        is_of_a_vit = (
            positions.ndim == 3
            and positions.shape[-1] == parameter.shape[-1]
            and isinstance(self.vit, vision_transformer_class())
        )
        return is_of_a_vit and (
            positions.shape != parameter.shape or self._is_other_layout()
        )

    def _is_other_layout(self) -> bool:
        """Whether even as many positions would stand for others.

        14 x 14 of an image are as many as 7 x 7 of each of four time steps.
        """
        has_token = self.vit.cls_token is not None
        return self._has_token != has_token or self._time_steps() != self._model_steps

    def _positions(self, positions: Tensor, parameter: Tensor) -> Tensor:
        """[1, M, D] on the grid of the weights -> [1, T*N, D] on that of the model."""
        grid_size, steps = self.vit.patch_embed.grid_size, self._time_steps()
        prefix, side = position_layout(positions.shape[1], steps, self._has_token)
        first, rest = positions.tensor_split([prefix], dim=1)
        grids = [self._resample(grid, grid_size) for grid in rest.chunk(steps, dim=1)]
        if (side, side) != grid_size:
            self.resampled = "{0} x {0} to {1} x {2}".format(side, *grid_size)
        first = self._class_position(first, parameter)
        return torch.cat([first, *grids * (self._model_steps // steps)], dim=1)

    @property
    def _has_token(self) -> bool:
        """Whether the weights are of a model with a class token."""
        return self.source.plain(CLASS_TOKEN) is not None

    @property
    def _model_steps(self) -> int:
        """How many time steps the model has positions of their own for."""
        embed = self.vit.patch_embed
        if isinstance(embed, TubeletEmbed) and not embed.folds_time:
            return embed.time_steps
        return 1

    def _time_steps(self) -> int:
        """How many time steps the weights have positions of their own for."""
        if self.source.repeats_over_time:
            return 1
        if self.is_factorised_encoder:
            raise TrialError(
                f"{POSITIONS} of the weights is for all time steps together, and a"
                " factorised encoder has the same positions at each"
            )
        return self._model_steps

    def _resample(self, grid: Tensor, grid_size: tuple[int, int]) -> Tensor:
        from timm.layers.pos_embed import resample_abs_pos_embed  # once it is needed

        resampled: Tensor = resample_abs_pos_embed(
            grid,
            grid_size,
            num_prefix_tokens=0,
            interpolation=self.interpolation,
            antialias=self.interpolation == "bicubic",
        )
        return resampled

    def _class_position(self, given: Tensor, parameter: Tensor) -> Tensor:
        """The position of the class token, where the model has one.

        It is zero where the weights have the token but no position of it, as those of
        big_vision; where they have no token, that of the model stays.
        """
        prefix = self.vit.num_prefix_tokens
        if prefix and self._has_token:
            return given if given.shape[1] else given.new_zeros(1, 1, given.shape[2])
        return parameter[:, :prefix].to(given)


def position_layout(
    positions: int, time_steps: int, has_class_token: bool
) -> tuple[int, int]:
    """How many positions come before the grids, and how long a side of a grid is."""
    for prefix in (1, 0) if has_class_token else (0,):
        side = math.isqrt((positions - prefix) // time_steps)
        if prefix + time_steps * side**2 == positions:
            return prefix, side
    grids = "no square grid" if time_steps == 1 else f"no {time_steps} square grids"
    raise TrialError(
        f"{POSITIONS} of the weights has {positions} positions, which make {grids}"
    )


def _tubelet_kernel(kernel: Tensor, frames: int, tubelets: Tubelets) -> Tensor:
    """[D, C, P, P] -> [D, C, t, P, P]."""
    if tubelets == "inflation":
        return (kernel / frames).unsqueeze(2).expand(-1, -1, frames, -1, -1)
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    inflated[:, :, frames // 2] = kernel
    return inflated
