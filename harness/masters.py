"""The fp32 weights that an optimiser steps, wherever an engine keeps them.

Without ZeRO every rank has all of them: the model's own, or in bf16 and fp16 copies.
From ZeRO 1 on each rank has its share, one flat tensor for a group of parameters. What
is done to every element alike, such as averaging, needs no other rank's share.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

SCALER_STATE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's scalers of the loss (fp16) change as they go on."""


class Masters:
    """What an optimiser steps on this rank."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        groups: Sequence[Sequence[Tensor]],
        publish: Callable[[], None],
        scaler: object = None,
    ) -> None:
        """Describe them.

        Args:
            optimizer: torch's own, which may stand inside of DeepSpeed's.
            groups: The tensors of each of its groups.
            publish: Lets the model compute with what the tensors hold; every rank
                calls it.
            scaler: What scales the loss, if anything does.
        """
        self.tensors = [tensor for group in groups for tensor in group]
        self.publish = publish
        self._optimizer, self._groups, self._scaler = optimizer, groups, scaler

    def state(self) -> dict[str, Any]:
        """This rank's part of the training's state: tensors, lists, dicts, numbers."""
        with self._in_their_groups():
            optimizer = self._optimizer.state_dict()["state"]
        return {
            "masters": [tensor.detach() for tensor in self.tensors],
            "optimizer": optimizer,
            "scaler": {
                name: getattr(self._scaler, name)
                for name in SCALER_STATE
                if hasattr(self._scaler, name)
            },
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from such a state; every rank must do so."""
        for tensor, kept in zip(self.tensors, state["masters"], strict=True):
            tensor.copy_(kept)
        with self._in_their_groups():
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict(
                {"state": state["optimizer"], "param_groups": groups}
            )
        for name, value in state["scaler"].items():
            setattr(self._scaler, name, value)
        self.publish()

    @contextmanager
    def _in_their_groups(self) -> Iterator[None]:
        """Inside, the optimiser's groups have their tensors, as ZeRO 3 leaves none."""
        kept = [group["params"] for group in self._optimizer.param_groups]
        self._set_groups(self._groups)
        try:
            yield
        finally:
            self._set_groups(kept)

    def _set_groups(self, groups: Sequence[Sequence[Tensor]]) -> None:
        for group, tensors in zip(self._optimizer.param_groups, groups, strict=True):
            group["params"] = list(tensors)


class Average:
    """A moving average of masters, one step to the next (Polyak averaging)."""

    def __init__(self, masters: Masters, decay: float) -> None:
        self.tensors = [tensor.detach().clone() for tensor in masters.tensors]
        self._masters, self._decay = masters, decay

    @torch.no_grad()
    def add_step(self) -> None:
        torch._foreach_lerp_(self.tensors, self._masters.tensors, 1 - self._decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the model computes with the average; every rank must do so."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, master in zip(self.tensors, self._masters.tensors, strict=True):
            kept = master.clone()
            master.copy_(average)
            average.copy_(kept)
        self._masters.publish()


def copy_tensors(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Copy many tensors in a few launches."""
    if sources:
        torch._foreach_copy_(list(targets), list(sources))


def deepspeed_masters(optimizer: Any) -> Masters:
    """The masters behind what `deepspeed.initialize` returns as its optimiser."""
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    if isinstance(optimizer, torch.optim.Optimizer):  # in fp32, without ZeRO
        groups = [group["params"] for group in optimizer.param_groups]
        return Masters(optimizer, groups, publish=lambda: None)
    if isinstance(optimizer, FP16_UnfusedOptimizer):
        return _unfused(optimizer)
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        return _zero3(optimizer)
    inner = optimizer.optimizer
    groups = [group["params"] for group in inner.param_groups]
    return Masters(inner, groups, optimizer.update_lp_params, optimizer.loss_scaler)


@torch.no_grad()
def _unfused(optimizer: Any) -> Masters:
    """In bf16 and fp16, without ZeRO."""
    weights = [weight for group in optimizer.fp16_groups for weight in group]
    masters = [master for group in optimizer.fp32_groups for master in group]
    # DeepSpeed makes the states by a step with gradients of zero, which decays the
    # masters and counts as a step; the first real step makes them just as well.
    optimizer.optimizer.state.clear()
    copy_tensors(weights, masters)

    @torch.no_grad()
    def publish() -> None:
        copy_tensors(masters, weights)

    return Masters(
        optimizer.optimizer, optimizer.fp32_groups, publish, optimizer.loss_scale_config
    )


def _zero3(optimizer: Any) -> Masters:
    inner = optimizer.optimizer
    groups: list[list[Tensor]] = [[] for _ in inner.param_groups]
    for number, tensor in enumerate(optimizer.fp32_partitioned_groups_flat):
        groups[optimizer.sub_group_to_group_id[number]].append(tensor)

    @torch.no_grad()
    def publish() -> None:
        # As at the end of DeepSpeed's own step: small parameters stay gathered.
        optimizer._partition_all_parameters()
        for number in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(number)
        gathered = optimizer.persistent_parameters
        if gathered:
            gathered[0].all_gather(gathered)

    return Masters(inner, groups, publish, optimizer.loss_scaler)
