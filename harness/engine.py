"""DeepSpeed: the process group of a trial, and a training engine for its model.

DeepSpeed is imported inside the functions: inference on one rank does without it, and
would otherwise pay a third of a second in each trial.
"""

import os
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.rank import Rank
from tlbench.suites.spec import Case, Parallelism

UNDECAYED = frozenset({"pos_embed", "cls_token", "latent"})
"""Parameters that are no matrices although they have more than one dimension: of the
embedding, and the query of a MAP head."""


def set_environment(rank: Rank) -> None:
    """Tell torch and DeepSpeed who we are; before either is imported for real work."""
    os.environ.update(
        RANK=str(rank.rank),
        WORLD_SIZE=str(rank.world_size),
        LOCAL_RANK=str(rank.local_rank),
        LOCAL_SIZE=str(rank.local_world_size),
        MASTER_ADDR=rank.master_address,
        MASTER_PORT=str(rank.master_port),
        DS_ACCELERATOR=rank.device,
    )


def join_process_group(rank: Rank) -> None:
    """Meet the other ranks: NCCL between GPUs, gloo otherwise."""
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    if rank.device == "cpu":
        # DeepSpeed would compile this operator at the first start on every machine,
        # and fail where there is no compiler. Only tensor-parallel inference uses it.
        __compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        "nccl" if rank.device == "cuda" else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        rank=rank.rank,
        world_size=rank.world_size,
    )


def leave_process_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def largest_of_ranks(value: int) -> int:
    """Find the largest value of any rank; every rank must ask."""
    if not torch.distributed.is_initialized():
        return value
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    largest = torch.tensor(value, device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest.item())


def wait_for_all_ranks() -> None:
    largest_of_ranks(0)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum of each element over all ranks; every rank must ask."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


def config(case: Case) -> dict[str, Any]:
    """The DeepSpeed configuration of a training case."""
    return {
        "train_batch_size": case.global_batch_size,
        "train_micro_batch_size_per_gpu": case.micro_batch_size,
        "gradient_accumulation_steps": case.accumulation,
        "gradient_clipping": case.optimizer.gradient_clipping,
        "zero_optimization": _zero(case.parallelism),
        "bf16": {"enabled": case.precision == "bf16"},
        "fp16": {"enabled": case.precision == "fp16"},
        "steps_per_print": 2**62,  # never
        # Its own optimiser for offloaded states is compiled first; torch's serves.
        "zero_force_ds_cpu_optimizer": False,
    }


def _zero(parallelism: Parallelism) -> dict[str, Any]:
    on_host = {"device": "cpu"}
    offloaded = {
        "none": {},
        "optimizer": {"offload_optimizer": on_host},
        "all": {"offload_optimizer": on_host, "offload_param": on_host},
    }
    return {"stage": parallelism.zero_stage, **offloaded[parallelism.offload]}


class TrainingEngine:
    """A model under DeepSpeed and AdamW that takes one optimiser step at a time."""

    def __init__(self, model: nn.Module, case: Case, rank: Rank) -> None:
        import deepspeed

        optimizer = torch.optim.AdamW(
            _parameter_groups(model, case.optimizer.weight_decay),
            lr=case.optimizer.learning_rate,
            # What is offloaded is stepped on the host.
            fused=rank.device == "cuda" and case.parallelism.offload == "none",
        )
        self.engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=config(case),
            dist_init_required=False,
        )
        self._accumulation = case.accumulation

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One optimiser step on this rank's share of the batch; its mean loss."""
        losses = []
        for part, targets in zip(
            images.chunk(self._accumulation),
            labels.chunk(self._accumulation),
            strict=True,
        ):
            logits = self.engine(part)
            loss = nn.functional.cross_entropy(logits.float(), targets)
            self.engine.backward(loss)
            self.engine.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean()


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices only: not biases, norms or position embeddings, as ViTs do."""
    parameters = [
        (parameter, parameter.ndim <= 1 or name.rpartition(".")[2] in UNDECAYED)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    spared = [parameter for parameter, is_spared in parameters if is_spared]
    decayed = [parameter for parameter, is_spared in parameters if not is_spared]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
