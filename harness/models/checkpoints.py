"""Checkpoints: files of weights, each read as what it is and not as it is called.

Read are the `.npz` of the public ViTs (JAX: google-research/vision_transformer and
big_vision), and the state dicts of timm, of Hugging Face transformers (ViT, ViViT) and
of tlbench, in safetensors or in torch's own format. No code in a file is ever run.
"""

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tlbench.errors import TrialError, name_error
from tlbench.models.flax_init import give_storage
from tlbench.models.timm_vit import vision_transformer_class
from tlbench.models.transfer import Interpolation, load_weights, position_layout
from tlbench.suites.checkpoints import sha256_of, why_another
from tlbench.suites.paths import local_path
from tlbench.suites.spec import Case
from tlbench.suites.training import Checkpoint

MAX_LISTED = 60
"""Most names that one note lists."""
BROKEN = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What the readers of torch, NumPy and Python raise where bytes are not as they should
be: a single wrong one may be any of these."""


class Weights(NamedTuple):
    """The content of a checkpoint."""

    tensors: dict[str, Tensor]
    """By the names of timm's ViT, where they are a ViT's."""
    left_out: tuple[str, ...] = ()
    """What else the file has, by its own names."""
    interpolation: Interpolation = "bicubic"
    """How timm resamples the positions of such a file."""


def load_checkpoint(model: nn.Module, case: Case) -> dict[str, str]:
    """Start the model from the case's checkpoint, where it has one.

    Returns:
        Notes for the trial: the digest of the file, what of the model was not set, what
        of the file was left out, and how positions were resampled.

    Raises:
        TrialError: The file is not there, is another one, or does not fit.
    """
    checkpoint = case.checkpoint
    if checkpoint is None:
        return {}
    try:
        path = _fetch(checkpoint.path)
        digest = _check_digest(checkpoint, path)
        weights = read_weights(path)
        transfer = load_weights(
            model,
            weights.tensors,
            tubelets=checkpoint.tubelets,
            interpolation=weights.interpolation,
        )
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        raise TrialError(f"checkpoint {checkpoint.path}: {why}") from error
    except TrialError as error:
        raise TrialError(f"checkpoint {checkpoint.path}: {error}") from error
    notes = {
        "checkpoint": f"SHA-256 {digest}",
        "checkpoint_not_set": _listed(transfer.not_set),
        "checkpoint_left_out": _listed(transfer.left_out + weights.left_out),
        "checkpoint_positions": transfer.resampled and f"from {transfer.resampled}",
    }
    return {name: note for name, note in notes.items() if note}


def read_weights(path: Path) -> Weights:
    """What a file on this machine holds.

    Raises:
        TrialError: It is no file of weights; the message goes on from its name.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        return _read_zip(path)
    if start.startswith(b"\x80"):
        return _from_state_dict(_load_pickle(path))
    if _is_safetensors(start):
        return _from_state_dict(_load_safetensors(path))
    raise TrialError(_what_else(start))


def _fetch(path: str) -> Path:
    """The file on this machine; one from elsewhere stays until the process ends."""
    local = local_path(path)
    if local is not None:
        return local
    import fsspec  # a URL is rare, and its file systems load slowly

    try:
        return Path(fsspec.open_local(f"simplecache::{path}"))
    except (OSError, ValueError, ImportError) as error:
        raise TrialError(f"cannot be fetched: {error}") from error


def _check_digest(checkpoint: Checkpoint, path: Path) -> str:
    digest = sha256_of(path)
    changed = why_another(checkpoint, digest)
    if changed is not None:
        raise TrialError(changed)
    return digest


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    rest = len(listed) - MAX_LISTED
    more = [f"and {rest} more"] if rest > 0 else []
    return ", ".join(listed[:MAX_LISTED] + more)


# ---------------------------------------------------------------- what a file is


def _is_safetensors(start: bytes) -> bool:
    """Whether it begins as safetensors do: the length of a JSON text, then the text."""
    is_plausible = int.from_bytes(start[:8], "little") <= 100_000_000  # their limit
    return is_plausible and start[8:9] == b"{"


def _read_zip(path: Path) -> Weights:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except BROKEN as error:
        raise TrialError(f"is a zip archive that is {_broken(error)}") from error
    if any(member.rpartition("/")[2] == "data.pkl" for member in members):
        return _from_state_dict(_load_pickle(path, mmap=True))
    if members and all(member.endswith(".npy") for member in members):
        return _read_npz(path)
    raise TrialError(
        f"is a zip archive of neither arrays nor tensors ({', '.join(members[:3])})"
    )


def _broken(error: Exception) -> str:
    return f"cut off or broken ({name_error(error)})"


def _what_else(start: bytes) -> str:
    """What a file is that holds no weights, by how it begins."""
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS; `git lfs pull` brings the file itself"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, such as one that says why a download failed"
    formats = "an .npz of JAX, safetensors or a state dict of torch would be right"
    is_text = b"\0" not in start and start[:64].isascii()
    return f"is {'text' if is_text else 'in a format that is not known'}; {formats}"


# ---------------------------------------------------------------- state dicts

HOLDERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
"""Where files of training keep the weights, averaged ones first: timm's order, and
DeepSpeed's `module`."""


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError  # with torch's, which loads slowly
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise TrialError(f"is a safetensors file that is {_broken(error)}") from error


def _load_pickle(path: Path, *, mmap: bool = False) -> dict[Any, Any]:
    """What seems to be a state dict; nothing where there is none."""
    try:
        # Files of timm's training hold its arguments, in this harmless class.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise TrialError(
            "is broken, or holds Python objects besides tensors, which would run code"
            " as they are loaded; what torch.save(model.state_dict(), path) writes"
            " would be right"
        ) from error
    except BROKEN as error:
        raise TrialError(f"is a file of torch that is {_broken(error)}") from error
    if not isinstance(content, dict):
        return {}
    held = (content.get(key) for key in HOLDERS)
    return next((value for value in held if isinstance(value, dict)), content)


TRANSFORMERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "classifier": "head",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention.query": "attn.query",
    "attention.attention.key": "attn.key",
    "attention.attention.value": "attn.value",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    # Since version 5:
    "attention.q_proj": "attn.query",
    "attention.k_proj": "attn.key",
    "attention.v_proj": "attn.value",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
"""Modules of Hugging Face's ViT and ViViT, and what timm calls them; timm has one
matrix for query, key and value."""
TRANSFORMERS_KERNEL = "embeddings.patch_embeddings.projection.weight"
TRANSFORMERS_NAME = re.compile(
    r"(?:(?:vi)?vit\.)?(?:(?:encoder\.layer|layers)\.(\d+)\.)?(.+?)(\.weight|\.bias)?"
)


def _from_state_dict(content: Mapping[Any, Any]) -> Weights:
    from timm.models._helpers import clean_state_dict  # timm, once it is needed

    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise TrialError("holds no state dict, which maps names to tensors")
    tensors = clean_state_dict(tensors)
    if any(name.endswith(TRANSFORMERS_KERNEL) for name in tensors):
        tensors = _fuse({_timm_name(name): value for name, value in tensors.items()})
    return Weights(tensors)


def _timm_name(name: str) -> str:
    """The name in timm's ViT of one of transformers; any other stays as it is."""
    found = TRANSFORMERS_NAME.fullmatch(name)
    if found is None or found[2] not in TRANSFORMERS:
        return name
    block = "" if found[1] is None else f"blocks.{found[1]}."
    return f"{block}{TRANSFORMERS[found[2]]}{found[3] or ''}"


def _fuse(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put query, key and value of each block into one matrix, in this order."""
    for name in [name for name in tensors if ".attn.query." in name]:
        names = [name.replace("query", part) for part in ("query", "key", "value")]
        parts = [tensors.pop(part) for part in names if part in tensors]
        if len(parts) < 3:
            raise TrialError(f"lacks one of {', '.join(names)}")
        tensors[name.replace("query", "qkv")] = torch.cat(parts)
    return tensors


# ---------------------------------------------------------------- the files of JAX

JAX_PREFIXES = ("", "opt/target/", "params/", "params/img/")
"""Where the ViT stands in such a file, as timm looks for it."""
JAX_PARTS = frozenset(
    {"embedding", "cls", "pos_embedding", "Transformer", "MAPHead_0", "head"}
)
"""What of it timm's conversion reads."""


def _read_npz(path: Path) -> Weights:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            prefix = _jax_prefix(arrays.files)
            template = _jax_template(arrays, prefix)
            names = arrays.files
        template.load_pretrained(str(path))
    except KeyError as error:
        raise TrialError(f"lacks a part of a ViT: {error.args[0]}") from error
    except BROKEN as error:
        raise TrialError(f"is no ViT of JAX, or {_broken(error)}") from error
    left_out = (name for name in names if not _is_read(name, prefix))
    return Weights(template.state_dict(), tuple(left_out), interpolation="bilinear")


def _jax_prefix(names: Iterable[str]) -> str:
    for prefix in JAX_PREFIXES:
        if f"{prefix}embedding/kernel" in names:
            return prefix
    raise TrialError(
        "holds arrays, but no ViT in the layout of JAX: embedding/kernel is not among"
        " them"
    )


def _is_read(name: str, prefix: str) -> bool:
    part = name.removeprefix(prefix).partition("/")[0]
    return name.startswith(prefix) and part in JAX_PARTS


def _jax_template(arrays: Any, prefix: str) -> Any:
    """A ViT of timm of the sizes that the arrays have, for its conversion to fill."""
    has_token, has_map = f"{prefix}cls" in arrays, f"{prefix}MAPHead_0/probe" in arrays
    patch_size, _, channels, embed_dim = arrays[f"{prefix}embedding/kernel"].shape
    positions = arrays[_jax_positions(arrays.files, prefix)].shape[1]
    before, side = position_layout(positions, 1, has_token)
    depth, mlp_dim = _jax_blocks(arrays, prefix)
    head = f"{prefix}head/bias"
    with torch.device("meta"):  # no weights are drawn
        template = vision_transformer_class()(
            img_size=side * patch_size,
            patch_size=patch_size,
            in_chans=channels,
            num_classes=len(arrays[head]) if head in arrays else 0,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=1,  # no weight's shape depends on it
            mlp_ratio=(mlp_dim + 0.5) / embed_dim,  # timm rounds the product down
            class_token=has_token,
            no_embed_class=not before,
            global_pool="map" if has_map else "token" if has_token else "avg",
            fc_norm=False,
            weight_init="skip",
        )
    give_storage(template, "cpu")
    return template


def _jax_positions(names: Sequence[str], prefix: str) -> str:
    of_big_vision = f"{prefix}pos_embedding"
    if of_big_vision in names:
        return of_big_vision
    return f"{prefix}Transformer/posembed_input/pos_embedding"


def _jax_blocks(arrays: Any, prefix: str) -> tuple[int, int]:
    """How many blocks there are, and how wide the hidden layer of their MLPs is."""
    blocks = f"{prefix}Transformer/encoderblock"
    biases = [
        arrays[name]
        for name in arrays.files
        if name.startswith(blocks) and name.endswith("Dense_0/bias")
    ]
    if not biases:
        raise TrialError(f"holds no {blocks} with an MLP")
    is_stacked = biases[0].ndim == 2  # all blocks in one array, as scans want them
    return biases[0].shape[0] if is_stacked else len(biases), biases[0].shape[-1]
