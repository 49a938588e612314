"""Checkpoints of others: the same logits from each format, and what is no checkpoint.

What writes a format here is no inverse made of the code under test: the layouts of JAX
and of Hugging Face are spelled out from their own documents.
"""

import argparse
import hashlib
import io
import pickle
import random
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.models._helpers import load_checkpoint as load_as_timm
from timm.models.vision_transformer import (
    VisionTransformer,
    checkpoint_filter_fn,
    vit_tiny_patch16_224,
)
from torch import Tensor, nn

from tlbench.errors import TrialError
from tlbench.models.checkpoints import MAX_LISTED, load_checkpoint, read_weights
from tlbench.models.vit import build_model
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

D, H, CLASSES = 12, 2, 10
IMAGES, CLIPS = "ViT-d12h2m20l2/4", "ViViT-d12h2m20l2/4x3"
POOLS = {"": "avg", ":token": "token", ":map": "map"}
"""How a name of tlbench says what the classifier sees, and how timm does."""

State = dict[str, Tensor]
Arrays = dict[str, Any]


def timm_vit(head: str = "", image_size: int = 12, **settings: Any) -> Any:
    """A small ViT of timm with the activation and the norm of the paper's code."""
    torch.manual_seed(1)
    pool = POOLS[head]
    model: Any = VisionTransformer(
        img_size=image_size,
        patch_size=4,
        num_classes=CLASSES,
        embed_dim=D,
        depth=2,
        num_heads=H,
        mlp_ratio=20.5 / D,
        global_pool=pool,
        class_token=pool == "token",
        fc_norm=False,
        act_layer=partial(nn.GELU, approximate="tanh"),
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **settings,
    )
    return stirred(model)


def stirred(model: Any) -> Any:
    """The model with every weight another one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def built(name: str, seed: int = 7, num_classes: int = CLASSES) -> Any:
    torch.manual_seed(seed)
    return stirred(build_model(parse_model(name), num_classes))


def case(name: str, path: Path | str, **settings: str) -> Case:
    clips = name.startswith("ViViT")
    return Case.model_validate(
        {
            "model": parse_model(name),
            "mode": "infer",
            "data": "moving-digits" if clips else "digits",
            "checkpoint": {"path": str(path), **settings},
        }
    )


def loaded(name: str, path: Path | str, **settings: str) -> tuple[Any, dict[str, str]]:
    """A model of tlbench, started from the file, and the notes of that."""
    model = built(name)
    return model, load_checkpoint(model, case(name, path, **settings))


def images(size: int = 12) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(5))


# ---------------------------------------------------------------- writers


def to_safetensors(model: Any, path: Path) -> None:
    save_file(model.state_dict(), path)


def to_torch(model: Any, path: Path) -> None:
    torch.save(model.state_dict(), path)


def to_legacy_torch(model: Any, path: Path) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def to_training_file(model: Any, path: Path) -> None:
    """As timm's training script keeps it: the averaged weights are the ones to use."""
    averaged = {f"module.{name}": value for name, value in model.state_dict().items()}
    other = {name: value + 1 for name, value in model.state_dict().items()}
    arguments = argparse.Namespace(model="vit", lr=0.1)
    file = {"epoch": 3, "args": arguments, "state_dict": other}
    torch.save({**file, "state_dict_ema": averaged}, path)


def to_jax(
    model: Any, path: Path, *, prefix: str = "", big_vision: bool = False
) -> None:
    arrays = jax_arrays(model, big_vision)
    save_npz({f"{prefix}{name}": value for name, value in arrays.items()}, path)


def jax_arrays(model: Any, big_vision: bool) -> Arrays:
    """The parameters as Flax names and turns them: kernels from input to output."""
    state: Arrays = {name: v.numpy() for name, v in model.state_dict().items()}
    positions = "pos_embedding"
    if not big_vision:
        positions = f"Transformer/posembed_input/{positions}"
    arrays = {
        "embedding/kernel": np.moveaxis(
            state["patch_embed.proj.weight"], (0, 1), (3, 2)
        ),
        "embedding/bias": state["patch_embed.proj.bias"],
        positions: state["pos_embed"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
        **flax_norm("Transformer/encoder_norm", state, "norm"),
    }
    if "cls_token" in state:
        arrays["cls"] = state["cls_token"]
    attention, mlp, norm = (0, 0, 1) if big_vision else (1, 3, 2)
    for i in range(2):
        block, ours = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        arrays |= flax_norm(f"{block}/LayerNorm_0", state, f"{ours}.norm1")
        arrays |= flax_norm(f"{block}/LayerNorm_{norm}", state, f"{ours}.norm2")
        arrays |= flax_mlp(f"{block}/MlpBlock_{mlp}", state, f"{ours}.mlp")
        heads = f"{block}/MultiHeadDotProductAttention_{attention}"
        arrays |= flax_out(f"{heads}/out", state, f"{ours}.attn.proj")
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * D, (j + 1) * D)
            arrays |= flax_heads(
                f"{heads}/{part}",
                state[f"{ours}.attn.qkv.weight"][rows],
                state[f"{ours}.attn.qkv.bias"][rows],
            )
    if "attn_pool.latent" in state:
        arrays |= flax_map_head(state)
    return arrays


def save_npz(arrays: Arrays, path: Path) -> None:
    with path.open("wb") as file:  # given a path, NumPy would change its name
        np.savez(file, **arrays)


def flax_map_head(state: Arrays) -> Arrays:
    """The head of big_vision's `vit.py:MAPHead`."""
    pool, heads = "MAPHead_0", "MAPHead_0/MultiHeadDotProductAttention_0"
    q, kv = (
        (state[f"attn_pool.{n}.weight"], state[f"attn_pool.{n}.bias"])
        for n in ("q", "kv")
    )
    return {
        f"{pool}/probe": state["attn_pool.latent"],
        **flax_norm(f"{pool}/LayerNorm_0", state, "attn_pool.norm"),
        **flax_mlp(f"{pool}/MlpBlock_0", state, "attn_pool.mlp"),
        **flax_heads(f"{heads}/query", *q),
        **flax_heads(f"{heads}/key", kv[0][:D], kv[1][:D]),
        **flax_heads(f"{heads}/value", kv[0][D:], kv[1][D:]),
        **flax_out(f"{heads}/out", state, "attn_pool.proj"),
    }


def flax_norm(name: str, state: Arrays, ours: str) -> Arrays:
    return {
        f"{name}/scale": state[f"{ours}.weight"],
        f"{name}/bias": state[f"{ours}.bias"],
    }


def flax_mlp(name: str, state: Arrays, ours: str) -> Arrays:
    return {
        f"{name}/Dense_{i}/{kind}": value
        for i in (0, 1)
        for kind, value in (
            ("kernel", state[f"{ours}.fc{i + 1}.weight"].T),
            ("bias", state[f"{ours}.fc{i + 1}.bias"]),
        )
    }


def flax_heads(name: str, weight: NDArray[Any], bias: NDArray[Any]) -> Arrays:
    """`DenseGeneral` from D to (heads, dim of a head)."""
    return {
        f"{name}/kernel": weight.T.reshape(D, H, D // H),
        f"{name}/bias": bias.reshape(H, D // H),
    }


def flax_out(name: str, state: Arrays, ours: str) -> Arrays:
    """`DenseGeneral` from (heads, dim of a head) to D."""
    return {
        f"{name}/kernel": state[f"{ours}.weight"].T.reshape(H, D // H, D),
        f"{name}/bias": state[f"{ours}.bias"],
    }


def to_stacked_jax(model: Any, path: Path) -> None:
    """As big_vision keeps scanned blocks: each parameter once, blocks in front."""
    given = jax_arrays(model, big_vision=True)
    arrays = {f"params/{name}": value for name, value in given.items()}
    first = "params/Transformer/encoderblock_0/"
    for name in [name for name in arrays if name.startswith(first)]:
        blocks = [arrays.pop(name.replace("_0/", f"_{i}/", 1)) for i in range(2)]
        arrays[name.replace("encoderblock_0", "encoderblock")] = np.stack(blocks)
    save_npz(arrays, path)


def transformers_state(model: Any, version: int, kind: str = "vit") -> State:
    """The parameters as `ViTForImageClassification` of transformers names them."""
    state = model.state_dict()
    layers = f"{kind}.encoder.layer" if version < 5 else f"{kind}.layers"
    query, out, first, second = {
        4: (
            "attention.attention.",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ),
        5: ("attention.", "attention.o_proj", "mlp.fc1", "mlp.fc2"),
    }[version]
    renamed = {
        f"{kind}.embeddings.cls_token": state["cls_token"],
        f"{kind}.embeddings.position_embeddings": state["pos_embed"],
    }
    parts = ("query", "key", "value") if version < 5 else ("q_proj", "k_proj", "v_proj")
    for leaf in ("weight", "bias"):
        patches = f"{kind}.embeddings.patch_embeddings.projection.{leaf}"
        renamed[patches] = state[f"patch_embed.proj.{leaf}"]
        renamed[f"{kind}.layernorm.{leaf}"] = state[f"norm.{leaf}"]
        renamed[f"classifier.{leaf}"] = state[f"head.{leaf}"]
        for i in range(2):
            layer, block = f"{layers}.{i}", f"blocks.{i}"
            qkv = state[f"{block}.attn.qkv.{leaf}"].chunk(3)
            for part, value in zip(parts, qkv, strict=True):
                renamed[f"{layer}.{query}{part}.{leaf}"] = value.clone()
            for theirs, ours in {
                out: "attn.proj",
                first: "mlp.fc1",
                second: "mlp.fc2",
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
            }.items():
                renamed[f"{layer}.{theirs}.{leaf}"] = state[f"{block}.{ours}.{leaf}"]
    return renamed


def to_transformers(model: Any, path: Path, *, version: int) -> None:
    save_file(transformers_state(model, version), path)


TIMM_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "safetensors": to_safetensors,
    "torch": to_torch,
    "legacy torch": to_legacy_torch,
    "training": to_training_file,
    "jax": to_jax,
    "jax train state": partial(to_jax, prefix="opt/target/"),
}
"""Formats of which timm's own loader is the reference."""


# ---------------------------------------------------------------- the same logits


@pytest.mark.parametrize("head", ["", ":token"])
@pytest.mark.parametrize("format_", TIMM_WRITERS)
def test_each_format_gives_the_logits_of_timm(
    tmp_path: Path, format_: str, head: str
) -> None:
    path = tmp_path / "weights"  # the name does not tell
    given = timm_vit(head)
    TIMM_WRITERS[format_](given, path)
    model, notes = loaded(f"{IMAGES}@12{head}", path)
    torch.testing.assert_close(model(images()), given(images()), atol=1e-5, rtol=0)
    assert notes == {"checkpoint": f"SHA-256 {sha256(path)}"}


@pytest.mark.parametrize("head", ["", ":token"])
@pytest.mark.parametrize("image_size", [8, 24])
@pytest.mark.parametrize("format_", ["safetensors", "torch", "jax"])
def test_another_resolution_gives_the_logits_of_timm_at_that_resolution(
    tmp_path: Path, format_: str, image_size: int, head: str
) -> None:
    path = tmp_path / {"jax": "w.npz"}.get(format_, f"w.{format_}")  # timm goes by it
    TIMM_WRITERS[format_](timm_vit(head), path)
    expected = timm_vit(head, image_size)
    load_as_timm(expected, str(path), filter_fn=checkpoint_filter_fn)
    model, notes = loaded(f"{IMAGES}@{image_size}{head}", path)
    resized = images(image_size)
    torch.testing.assert_close(model(resized), expected(resized), atol=1e-5, rtol=0)
    side = image_size // 4
    assert notes["checkpoint_positions"] == f"from 3 x 3 to {side} x {side}"


@pytest.mark.parametrize("head", ["", ":map"])
@pytest.mark.parametrize(
    "write",
    [partial(to_jax, prefix="params/", big_vision=True), to_stacked_jax],
    ids=["blocks", "stacked"],
)
def test_files_of_big_vision_give_the_logits_of_timm(
    tmp_path: Path, write: Callable[[Any, Path], None], head: str
) -> None:
    path, given = tmp_path / "weights", timm_vit(head)
    write(given, path)
    model, notes = loaded(f"{IMAGES}@12{head}", path)
    torch.testing.assert_close(model(images()), given(images()), atol=1e-5, rtol=0)
    assert list(notes) == ["checkpoint"]


@pytest.mark.parametrize("format_", ["jax", "safetensors"])
def test_a_class_token_without_a_position_gives_the_logits_of_timm(
    tmp_path: Path, format_: str
) -> None:
    path, given = tmp_path / "weights", timm_vit(":token", no_embed_class=True)
    if format_ == "jax":
        to_jax(given, path, prefix="params/", big_vision=True)
    else:
        to_safetensors(given, path)
    model, _ = loaded(f"{IMAGES}@12:token", path)
    torch.testing.assert_close(model(images()), given(images()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("version", [4, 5])
def test_transformers_files_give_the_logits_of_the_same_vit(
    tmp_path: Path, version: int
) -> None:
    path, given = tmp_path / "weights", timm_vit(":token")
    to_transformers(given, path, version=version)
    model, notes = loaded(f"{IMAGES}@12:token", path)
    torch.testing.assert_close(model(images()), given(images()), atol=1e-5, rtol=0)
    assert list(notes) == ["checkpoint"]


def test_the_base_model_of_transformers_has_no_prefix_and_no_head(
    tmp_path: Path,
) -> None:
    state = transformers_state(timm_vit(":token"), version=4)
    base = {
        name.removeprefix("vit."): value
        for name, value in state.items()
        if name.startswith("vit.")
    }
    base["pooler.dense.weight"] = torch.zeros(D, D)
    save_file(base, tmp_path / "weights")
    model, notes = loaded(f"{IMAGES}@12:token", tmp_path / "weights")
    assert notes["checkpoint_not_set"] == "head.weight, head.bias"
    assert notes["checkpoint_left_out"] == "pooler.dense.weight"
    assert torch.equal(model.cls_token, state["vit.embeddings.cls_token"])


def test_vivit_of_transformers_is_the_joint_model_with_a_class_token(
    tmp_path: Path,
) -> None:
    name = f"{CLIPS}@12x6:token"
    given = built(name, seed=1, num_classes=40)
    save_file(transformers_state(given, 4, "vivit"), tmp_path / "weights")
    model = built(name, num_classes=40)
    notes = load_checkpoint(model, case(name, tmp_path / "weights"))
    clips = torch.randn(2, 3, 6, 12, 12)
    torch.testing.assert_close(model(clips), given(clips), atol=1e-5, rtol=0)
    assert list(notes) == ["checkpoint"]


@pytest.mark.slow  # loads the whole of timm
def test_a_published_size_of_timm_is_the_model_of_that_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = vit_tiny_patch16_224(act_layer="gelu_tanh").eval()
    path = tmp_path / "model.safetensors"
    to_safetensors(given, path)
    name = "ViT-Ti/16:token"
    model = build_model(parse_model(name), 1000).eval()
    assert list(load_checkpoint(model, case(name, path))) == ["checkpoint"]
    samples = images(224)
    torch.testing.assert_close(model(samples), given(samples), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name", [f"{IMAGES}@12+TL3fuse@1", f"{CLIPS}@12x6:encoder2+TL3@1"]
)
def test_a_model_of_tlbench_is_read_back(tmp_path: Path, name: str) -> None:
    given = built(name, seed=1)
    to_safetensors(given, tmp_path / "model.safetensors")
    model, notes = loaded(name, tmp_path / "model.safetensors")
    assert all(
        torch.equal(value, model.state_dict()[key])
        for key, value in given.state_dict().items()
    )
    assert list(notes) == ["checkpoint"]


def test_names_of_any_other_module_stay_as_they_are(tmp_path: Path) -> None:
    given = {
        "classifier.weight": torch.ones(2),
        "layers.0.mlp.fc1.weight": torch.ones(3),
    }
    save_file(given, tmp_path / "weights")
    assert read_weights(tmp_path / "weights").tensors.keys() == given.keys()


def test_weights_are_rounded_to_the_precision_of_the_model(tmp_path: Path) -> None:
    given = timm_vit()
    to_safetensors(given, tmp_path / "weights")
    model = built(f"{IMAGES}@12").bfloat16()
    load_checkpoint(model, case(f"{IMAGES}@12", tmp_path / "weights"))
    assert torch.equal(model.pos_embed, given.pos_embed.bfloat16())


# ---------------------------------------------------------------- into other models


def test_what_is_missing_and_what_is_too_much_is_named(tmp_path: Path) -> None:
    to_jax(timm_vit(":token"), tmp_path / "weights")
    name = f"{IMAGES}@24+TL3v1@1"
    model = built(name, num_classes=7)
    head = model.head.weight.clone()
    notes = load_checkpoint(model, case(name, tmp_path / "weights"))
    not_set = notes.pop("checkpoint_not_set").split(", ")
    assert not_set[-2:] == ["head.weight", "head.bias"]
    assert {".".join(n.split(".")[:2]) for n in not_set[:-2]} == {
        "blocks.token_learner"
    }
    assert notes == {
        "checkpoint": f"SHA-256 {sha256(tmp_path / 'weights')}",
        "checkpoint_left_out": "cls_token, head.weight, head.bias",
        "checkpoint_positions": "from 3 x 3 to 6 x 6",
    }
    assert torch.equal(model.head.weight, head)


def test_parts_of_a_jax_file_that_no_vit_of_timm_has_are_named(tmp_path: Path) -> None:
    arrays = jax_arrays(timm_vit(":token"), big_vision=False)
    arrays["pre_logits/kernel"] = np.zeros((D, D))
    save_npz(arrays, tmp_path / "weights.npz")
    _, notes = loaded(f"{IMAGES}@12:token", tmp_path / "weights.npz")
    assert notes["checkpoint_left_out"] == "pre_logits/kernel"


def test_a_note_lists_no_more_names_than_one_reads(tmp_path: Path) -> None:
    extra = {f"extra.{i:02}": torch.zeros(1) for i in range(MAX_LISTED + 5)}
    save_file(timm_vit().state_dict() | extra, tmp_path / "weights")
    _, notes = loaded(f"{IMAGES}@12", tmp_path / "weights")
    assert notes["checkpoint_left_out"].endswith(f"extra.{MAX_LISTED - 1}, and 5 more")


@pytest.mark.parametrize("tubelets", ["central", "inflation"])
def test_an_image_vit_starts_a_model_of_clips(tmp_path: Path, tubelets: str) -> None:
    given = timm_vit()
    to_jax(given, tmp_path / "weights")
    model, notes = loaded(f"{CLIPS}@12x6", tmp_path / "weights", tubelets=tubelets)
    assert list(notes) == ["checkpoint"]
    image = images()
    clip = image.unsqueeze(2).expand(-1, -1, 6, -1, -1)
    expected = given._pos_embed(given.patch_embed(image)).repeat(1, 2, 1)
    embedded = model._pos_embed(model.patch_embed(clip))
    torch.testing.assert_close(embedded, expected, atol=1e-5, rtol=0)


def test_a_case_without_a_checkpoint_leaves_the_model_as_it_is() -> None:
    model = built(f"{IMAGES}@12")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = Case(model=parse_model(f"{IMAGES}@12"), mode="infer", data="digits")
    assert load_checkpoint(model, plain) == {}
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_a_checkpoint_of_other_sizes_is_one_sentence(tmp_path: Path) -> None:
    to_safetensors(timm_vit(), tmp_path / "weights")
    assert problem("ViT-d16h2m20l2/4@12", tmp_path / "weights") == (
        "pos_embed is [1, 9, 16] in the model, and the weights have [1, 9, 12] for it"
    )


# ---------------------------------------------------------------- where a file lies


def test_a_url_of_fsspec_is_fetched(tmp_path: Path) -> None:
    given = timm_vit()
    to_torch(given, tmp_path / "weights.pth")
    fsspec.filesystem("memory").pipe(
        "/checkpoints/weights", (tmp_path / "weights.pth").read_bytes()
    )
    for url in ("memory://checkpoints/weights", f"file://{tmp_path}/weights.pth"):
        model, _ = loaded(f"{IMAGES}@12", url)
        assert torch.equal(model.pos_embed, given.pos_embed)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memory://nothing/there", "cannot be fetched: "),
        ("nowhere://weights", "cannot be fetched: Protocol not known: nowhere"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_sentence(url: str, why: str) -> None:
    assert problem(f"{IMAGES}@12", url).startswith(why)


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    why = problem(f"{IMAGES}@12", tmp_path / "weights")
    assert why == "cannot be read: No such file or directory"
    assert problem(f"{IMAGES}@12", tmp_path) == "cannot be read: Is a directory"


def test_another_file_than_the_suite_was_made_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    to_safetensors(timm_vit(), path)
    loaded(f"{IMAGES}@12", path, sha256=sha256(path))
    model, other = built(f"{IMAGES}@12"), "0" * 64
    before = model.pos_embed.clone()
    with pytest.raises(TrialError) as caught:
        load_checkpoint(model, case(f"{IMAGES}@12", path, sha256=other))
    assert str(caught.value) == (
        f"checkpoint {path}: has changed: its SHA-256 is {sha256(path)}, and the suite"
        f" was made for {other}"
    )
    assert torch.equal(model.pos_embed, before)


# ---------------------------------------------------------------- what is no checkpoint


class Harmful:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, is_zip: bool) -> None:
    content = {"pos_embed": torch.zeros(1), "extra": Harmful(tmp_path / "ran")}
    path = tmp_path / "weights"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    assert "holds Python objects besides tensors, which would" in why_not_read(path)
    path.write_bytes(pickle.dumps(content))
    assert "holds Python objects besides tensors, which would" in why_not_read(path)
    save_npz({"embedding/kernel": np.array(Harmful(tmp_path / "ran"))}, path)
    assert "allow_pickle=False" in why_not_read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n",
            "is a pointer of Git LFS; `git lfs pull` brings the file itself",
        ),
        (b"\n<!DOCTYPE html><html><body>404", "is a web page, such as one that says"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "is a web page, such as"),
        (b'{"weight_map": {}}', "is text; an .npz of JAX, safetensors or a state dict"),
        (b"not a checkpoint at all\n" * 99, "is text; an .npz of JAX, safetensors or"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "is in a format that is not known; an .npz"),
        (b"\x93NUMPY\x01\x00v\x00", "is in a format that is not known; an .npz of JAX"),
        (b"PK\x03\x04 and no more", "is a zip archive that is cut off or broken ("),
    ],
)
def test_what_is_no_checkpoint_is_one_sentence(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "model.safetensors"  # whatever its name says
    path.write_bytes(content)
    assert why_not_read(path).startswith(why)


@pytest.mark.parametrize("format_", TIMM_WRITERS)
@pytest.mark.parametrize("share", [0.999, 0.5, 0.02])
def test_a_file_that_was_cut_off_is_one_sentence(
    tmp_path: Path, format_: str, share: float
) -> None:
    path = tmp_path / "weights"
    TIMM_WRITERS[format_](timm_vit(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert why_not_read(path)


@pytest.mark.parametrize("format_", TIMM_WRITERS)
def test_damaged_files_are_read_or_refused_in_one_sentence(
    tmp_path: Path, format_: str
) -> None:
    path, dice = tmp_path / "weights", random.Random(20210621)
    TIMM_WRITERS[format_](timm_vit(), path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(30):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 10))):
            near_an_end = dice.choice((1, -1)) * dice.randrange(1, 2000)
            data[near_an_end] = dice.randrange(256)
        path.write_bytes(data)
        try:
            read_weights(path)
        except TrialError as error:
            refused += bool(one_line(str(error)))
    assert refused


def test_an_archive_of_other_things_is_one_sentence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    why = why_not_read(tmp_path / "weights.zip")
    assert why == "is a zip archive of neither arrays nor tensors (readme.txt)"


def test_arrays_of_something_else_are_one_sentence(tmp_path: Path) -> None:
    save_npz({"images": np.zeros(3)}, tmp_path / "arrays.npz")
    assert why_not_read(tmp_path / "arrays.npz").startswith("holds arrays, but no ViT")


def test_an_array_that_claims_more_than_any_memory_is_one_sentence(
    tmp_path: Path,
) -> None:
    header = io.BytesIO()
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (1 << 58,)}
    np.lib.format.write_array_header_1_0(header, claimed)
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("embedding/kernel.npy", header.getvalue())
    assert "cut off or broken (" in why_not_read(tmp_path / "weights.npz")


@pytest.mark.parametrize("part", ["encoder_norm/bias", "Dense_0/bias", "pos_embedding"])
def test_a_jax_file_that_lacks_a_part_is_one_sentence(
    tmp_path: Path, part: str
) -> None:
    arrays = jax_arrays(timm_vit(), big_vision=False)
    kept = {name: array for name, array in arrays.items() if not name.endswith(part)}
    save_npz(kept, tmp_path / "weights.npz")
    assert "Transformer/" in why_not_read(tmp_path / "weights.npz")


@pytest.mark.parametrize(
    "content", [torch.zeros(3), [1, 2], {"epoch": 3}, {0: torch.zeros(3)}, {}]
)
def test_a_file_of_torch_without_a_state_dict_is_one_sentence(
    tmp_path: Path, content: object
) -> None:
    torch.save(content, tmp_path / "weights.pth")
    why = why_not_read(tmp_path / "weights.pth")
    assert why == "holds no state dict, which maps names to tensors"


def test_a_layer_of_transformers_without_its_value_is_one_sentence(
    tmp_path: Path,
) -> None:
    state = transformers_state(timm_vit(":token"), version=4)
    del state["vit.encoder.layer.1.attention.attention.value.weight"]
    save_file(state, tmp_path / "weights")
    assert why_not_read(tmp_path / "weights").startswith(
        "lacks one of blocks.1.attn.qu"
    )


def test_safetensors_of_something_else_are_one_sentence(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "weights")
    why = problem(f"{IMAGES}@12", tmp_path / "weights")
    assert why.startswith("these are not the weights of a ViT: patch_embed.proj.weight")


def problem(name: str, path: Path | str) -> str:
    """Why the checkpoint cannot start the model, behind its path."""
    with pytest.raises(TrialError) as caught:
        loaded(name, path)
    before, _, why = str(caught.value).partition(f"checkpoint {path}: ")
    assert not before
    return one_line(why)


def why_not_read(path: Path) -> str:
    with pytest.raises(TrialError) as caught:
        read_weights(path)
    return one_line(str(caught.value))


def one_line(message: str) -> str:
    assert message
    assert "\n" not in message
    return message


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
