"""The process group of a trial, and what trains its model: DeepSpeed, or torch alone.

DeepSpeed is imported inside the functions: inference does without it, and would
otherwise pay a third of a second in each trial.

B samples of this rank in one step.
"""

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tlbench.errors import TrialError, UnsupportedError
from tlbench.losses import classification_loss
from tlbench.masters import Average, Masters, copy_tensors, deepspeed_masters
from tlbench.network import interface_towards
from tlbench.rank import Rank
from tlbench.suites.spec import NO_TRAINING, Case, Parallelism

MOMENTUM = 0.9
"""Of sgd."""
DECAY = "decoupled_weight_decay"
"""What a group of torch's SGD keeps its weight decay as."""
COMMUNICATION_SETTINGS = ("NCCL_", "GLOO_", "TORCH_NCCL_")
"""How the names of environment variables begin that change how ranks exchange."""
_SECRET = re.compile("TOKEN|KEY|SECRET|PASSWORD")
UNDECAYED = frozenset({"pos_embed", "cls_token", "latent"})
"""Parameters that are no matrices although they have more than one dimension: of the
embedding, and the query of a MAP head."""


def set_environment(rank: Rank) -> None:
    """Tell torch and DeepSpeed who we are; before either is imported for real work."""
    os.environ.update(
        RANK=str(rank.rank),
        WORLD_SIZE=str(rank.world_size),
        # DeepSpeed takes it for the number of its GPU, and every rank sees only one.
        LOCAL_RANK="0" if rank.device == "cuda" else str(rank.local_rank),
        LOCAL_SIZE=str(rank.local_world_size),
        MASTER_ADDR=rank.master_address,
        MASTER_PORT=str(rank.master_port),
        DS_ACCELERATOR=rank.device,
    )
    if rank.world_size > 1:
        # Gloo takes the interface that has the address of the host name: on many
        # machines the loopback, on others never. NCCL does not look at names.
        interface = interface_towards(rank.master_address)
        if interface is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if rank.device == "cpu":
        # A machine that is measured without its GPUs has none, its fingerprint says.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def join_process_group(case: Case, rank: Rank) -> None:
    """Meet the other ranks: over NCCL between GPUs, over gloo otherwise.

    A rank that is alone needs no group, except where DeepSpeed trains.
    """
    is_deepspeed = case.mode not in NO_TRAINING and case.stack == "deepspeed"
    if rank.world_size == 1 and not is_deepspeed:
        return
    backend, store = _backend(rank), None
    # With torchrun they meet at its own process.
    if rank.rank == 0 and rank.is_met_on_loopback and case.stack != "torchrun":
        store = _loopback_store(rank)
    if is_deepspeed:
        _join_by_deepspeed(backend, rank)
    else:
        torch.distributed.init_process_group(
            backend, rank=rank.rank, world_size=rank.world_size
        )
    del store  # the process group has it by now


def _loopback_store(rank: Rank) -> object:
    """Where ranks of one machine meet; torch by itself listens on all addresses.

    Within a process torch has one store a port, so the process group takes this one.
    """
    listener = socket.create_server((rank.master_address, rank.master_port))
    return torch.distributed.TCPStore(  # type: ignore[attr-defined]  # not listed
        rank.master_address,
        rank.master_port,
        rank.world_size,
        is_master=True,
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=listener.detach(),
    )


def _backend(rank: Rank) -> str:
    return "nccl" if rank.device == "cuda" else "gloo"


def describe_communication(rank: Rank) -> str:
    """What ranks exchange by, and what this rank's environment tells it."""
    words = _backend(rank)
    if words == "nccl":
        version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]  # bare
        words += f" {'.'.join(map(str, version))}"
    told = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(COMMUNICATION_SETTINGS) and not _SECRET.search(name)
    ]
    return ", ".join([words, *told])


def _join_by_deepspeed(backend: str, rank: Rank) -> None:
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    if rank.device == "cpu":
        # DeepSpeed would compile this operator at the first start on every machine,
        # and fail where there is no compiler. Only tensor-parallel inference uses it.
        __compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        backend,
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
    distributed = torch.distributed
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
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
    """The DeepSpeed configuration of a training case: the user's under the case's."""
    return _laid_over(_laid_over(_DEFAULTS, case.deepspeed or {}), _decided(case))


_DEFAULTS: dict[str, Any] = {
    "steps_per_print": 2**62,  # never
    # Its own optimiser for offloaded states is compiled first; torch's serves.
    "zero_force_ds_cpu_optimizer": False,
    # So it calls SGD, whose steps the tests hold against torch's at every stage.
    "zero_allow_untested_optimizer": True,
}
"""Where neither the case nor the user says otherwise."""


def _decided(case: Case) -> dict[str, Any]:
    return {
        "train_batch_size": case.global_batch_size,
        "train_micro_batch_size_per_gpu": case.micro_batch_size,
        "gradient_accumulation_steps": case.accumulation,
        "gradient_clipping": case.optimizer.gradient_clipping,
        "zero_optimization": _zero(case.parallelism),
        "bf16": {"enabled": case.precision == "bf16"},
        "fp16": {"enabled": case.precision == "fp16"},
    }


def _laid_over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top`, and from `base` what it leaves open; inside mappings likewise."""
    merged = {**base, **top}
    for key, below in base.items():
        if isinstance(below, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = _laid_over(below, merged[key])
    return merged


def _zero(parallelism: Parallelism) -> dict[str, Any]:
    on_host = {"device": "cpu"}
    offloaded = {
        "none": {},
        "optimizer": {"offload_optimizer": on_host},
        "all": {"offload_optimizer": on_host, "offload_param": on_host},
    }
    return {"stage": parallelism.zero_stage, **offloaded[parallelism.offload]}


class TrainingEngine(Protocol):
    """A model and an optimiser that take one step at a time."""

    @property
    def model(self) -> nn.Module:
        """What is called with this rank's images, for training and evaluation."""

    def set_learning_rate(self, learning_rate: float) -> None: ...

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        """One optimiser step on this rank's share of the batch; its mean loss."""

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model computes with the average of its weights, if one is kept.

        Every rank must do so.
        """

    def state(self) -> dict[str, Any]:
        """What this rank goes on from: tensors, lists, dicts and numbers only."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from such a state; every rank must do so."""

    def whole_weights(self) -> dict[str, Tensor]:
        """The weights that the model computes with, by name; on rank 0, of all ranks.

        Every rank must ask.
        """


def training_engine(model: nn.Module, case: Case, rank: Rank) -> TrainingEngine:
    """What the case's stack trains with."""
    engine = DeepSpeedEngine if case.stack == "deepspeed" else TorchEngine
    return engine(model, case, rank)


@torch.no_grad()
def set_head_bias(model: nn.Module, value: float) -> None:
    """Fill the biases of the classifier.

    Raises:
        TrialError: The model has no layer called head, or one without a bias.
    """
    biases = [
        parameter
        for name, parameter in model.named_parameters()
        if f".{name}".endswith(".head.bias")
    ]
    if not biases:
        raise TrialError(
            f"fit.head_bias={value:g} is for the bias of a layer called head, which"
            " this model has not"
        )
    for bias in biases:
        bias.fill_(value)


class _Engine:
    """What both engines can do with the weights between two steps."""

    def __init__(self, network: nn.Module, masters: Masters, case: Case, rank: Rank):
        self._network, self._masters, self._rank = network, masters, rank
        self._fit, self._accumulation = case.fit, case.accumulation
        decay = case.fit.ema_decay
        self._average = Average(masters, decay) if decay else None

    def averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.in_use()

    def state(self) -> dict[str, Any]:
        return {
            **self._masters.state(),
            "average": [] if self._average is None else self._average.tensors,
            "buffers": dict(self._network.named_buffers()),
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        self._masters.load_state(state)
        averages = [] if self._average is None else self._average.tensors
        for tensor, kept in zip(averages, state["average"], strict=True):
            tensor.copy_(kept)
        for name, buffer in self._network.named_buffers():
            buffer.copy_(state["buffers"][name])

    def whole_weights(self) -> dict[str, Tensor]:
        weights = {}
        for name, tensor in self._network.state_dict(keep_vars=True).items():
            with self._gathered(tensor):
                if self._rank.rank == 0:
                    weights[name] = tensor.detach().to("cpu", copy=True).contiguous()
        return weights

    def _gathered(self, tensor: Tensor) -> AbstractContextManager[None]:
        """Inside, the tensor is there as a whole."""
        return nullcontext()

    def _end_step(self) -> None:
        if self._average is not None:
            self._average.add_step()


class DeepSpeedEngine(_Engine):
    """Training under DeepSpeed, with the ZeRO stage and offload of the case."""

    def __init__(self, model: nn.Module, case: Case, rank: Rank) -> None:
        import deepspeed

        # What is offloaded is stepped on the host.
        is_on_gpu = rank.device == "cuda" and case.parallelism.offload == "none"
        groups = _parameter_groups(model, case.optimizer.weight_decay)
        self.model, *_ = deepspeed.initialize(
            model=model,
            optimizer=_optimizer(groups, case, is_on_gpu=is_on_gpu),
            config=config(case),
            dist_init_required=False,
        )
        super().__init__(model, deepspeed_masters(self.model.optimizer), case, rank)

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.model.optimizer.param_groups:
            group["lr"] = learning_rate

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        losses = []
        for part, wanted in _parts(images, targets, self._accumulation):
            loss = classification_loss(self.model(part), wanted, self._fit)
            self.model.backward(loss)
            self.model.step()
            losses.append(loss.detach())
        self._end_step()
        return torch.stack(losses).mean()

    def _gathered(self, tensor: Tensor) -> AbstractContextManager[None]:
        import deepspeed

        gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
            [tensor]
        )
        return gathered


class TorchEngine(_Engine):
    """The same training by torch alone, and DistributedDataParallel between ranks.

    In bf16 it keeps the weights in fp32 beside those that the model computes with, and
    adds up and exchanges gradients in bf16, both as DeepSpeed does.
    """

    def __init__(self, model: nn.Module, case: Case, rank: Rank) -> None:
        if case.precision == "fp16":
            raise UnsupportedError(
                f"stack={case.stack} does not scale the loss as precision fp16 needs;"
                " stack=deepspeed does, and bf16 does without"
            )
        is_bf16 = case.precision == "bf16"
        model = model.bfloat16() if is_bf16 else model
        groups = _parameter_groups(model, case.optimizer.weight_decay)
        weights = _parameters(groups)
        if is_bf16:
            groups = [_in_fp32(group) for group in groups]
        self._stepped = _parameters(groups)
        self._copied = list(zip(weights, self._stepped, strict=True)) if is_bf16 else []
        self._optimizer = _optimizer(groups, case, is_on_gpu=rank.device == "cuda")
        self._clipping = case.optimizer.gradient_clipping
        masters = Masters(
            self._optimizer, [group["params"] for group in groups], self._publish
        )
        super().__init__(model, masters, case, rank)
        self.model = DistributedDataParallel(model) if rank.world_size > 1 else model

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        losses: list[Tensor] = []
        for part, wanted in _parts(images, targets, self._accumulation):
            is_last = len(losses) + 1 == self._accumulation
            with nullcontext() if is_last else self._without_exchange():
                loss = classification_loss(self.model(part), wanted, self._fit)
                torch.autograd.backward(loss / self._accumulation)
            losses.append(loss.detach())
        self._update_weights()
        self._end_step()
        return torch.stack(losses).mean()

    def _without_exchange(self) -> AbstractContextManager[None]:
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    @torch.no_grad()
    def _update_weights(self) -> None:
        # A builder's model may have weights that take no part in its loss.
        copied = [(w, c) for w, c in self._copied if w.grad is not None]
        weights, copies = [w for w, _ in copied], [c for _, c in copied]
        for copy in copies:
            copy.grad = torch.empty_like(copy)
        copy_tensors(_gradients(weights), _gradients(copies))
        if self._clipping:
            nn.utils.clip_grad_norm_(self._stepped, self._clipping)
        self._optimizer.step()
        copy_tensors(copies, weights)
        self._optimizer.zero_grad()
        self.model.zero_grad()

    @torch.no_grad()
    def _publish(self) -> None:
        copy_tensors([c for _, c in self._copied], [w for w, _ in self._copied])


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _parts(
    images: Tensor, targets: Tensor, count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The micro-batches of a step: images [B / count, ...], and as many targets."""
    return zip(images.chunk(count), targets.chunk(count), strict=True)


def _optimizer(
    groups: list[dict[str, Any]], case: Case, *, is_on_gpu: bool
) -> torch.optim.Optimizer:
    learning_rate = case.optimizer.learning_rate
    if case.optimizer.kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, fused=is_on_gpu)
    # torch's SGD would add the decay to the gradient.
    decoupled = [
        group | {"weight_decay": 0.0, DECAY: group["weight_decay"]} for group in groups
    ]
    optimizer = torch.optim.SGD(
        decoupled, lr=learning_rate, momentum=MOMENTUM, fused=is_on_gpu
    )
    optimizer.register_step_pre_hook(_decay)
    return optimizer


@torch.no_grad()
def _decay(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Decay ahead of the step, as AdamW does: of what has a gradient only."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if group[DECAY] and parameter.grad is not None:
                parameter.mul_(1 - group["lr"] * group[DECAY])


def _parameters(groups: list[dict[str, Any]]) -> list[Tensor]:
    return [parameter for group in groups for parameter in group["params"]]


def _in_fp32(group: dict[str, Any]) -> dict[str, Any]:
    """The group with copies of its parameters."""
    copies = [parameter.detach().float() for parameter in group["params"]]
    return group | {"params": copies}


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
