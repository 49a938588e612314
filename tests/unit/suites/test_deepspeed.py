"""A user's own DeepSpeed configuration: read, kept whole, held against its case."""

import json
from pathlib import Path
from typing import Any

import pytest

from tlbench.errors import SuiteError
from tlbench.suites.loader import parse_suite, repeat_suite
from tlbench.suites.spec import Case, Trial

BUCKETS = {"zero_optimization": {"reduce_bucket_size": 1000}}


def cases(folder: Path, named: str, more: str = "") -> tuple[Case, ...]:
    text = f"models: ViT-Ti/16\n{more or 'mode: train'}\ndeepspeed: {named}\n"
    return parse_suite(text, "suite.yaml", folder).cases


def config_of(folder: Path, content: object, more: str = "") -> Any:
    """What a case keeps of a file."""
    (folder / "ds.json").write_text(json.dumps(content))
    (case,) = cases(folder, "ds.json", more)
    return case.deepspeed


def mistake(folder: Path, content: str | bytes, more: str = "") -> str:
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / "ds.json").write_bytes(raw)
    with pytest.raises(SuiteError) as caught:
        cases(folder, "ds.json", more)
    return str(caught.value).partition(": deepspeed: ")[2]


def test_a_case_holds_what_the_file_beside_the_suite_says(tmp_path: Path) -> None:
    config = BUCKETS | {"flops_profiler": {"detailed": False}, "of": [1, 2.5, None]}
    assert config_of(tmp_path, config) == config


def test_the_file_and_its_content_in_the_suite_are_one_case(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps(BUCKETS))
    spelled_out = json.dumps(BUCKETS)
    identities = {
        case.identity
        for named in ("ds.json", spelled_out, f"'{spelled_out}'")
        for case in cases(tmp_path, named)
    }
    assert len(identities) == 1
    assert identities != {case.identity for case in cases(tmp_path, "null")}


def test_lists_in_a_mapping_are_axes_and_files_too(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"of": [1, 2]}')
    found = cases(tmp_path, "[null, ds.json, {overlap_comm: [true, false]}]")
    assert [case.deepspeed for case in found] == [
        None,
        {"of": [1, 2]},
        {"overlap_comm": True},
        {"overlap_comm": False},
    ]


def test_an_exclusion_names_the_file_as_the_suite_does(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps(BUCKETS))
    more = (
        "mode: train\nexclude: {deepspeed: ds.json, batch_size: 8}\nbatch_size: [4, 8]"
    )
    assert [case.batch_size for case in cases(tmp_path, "ds.json", more)] == [4]


@pytest.mark.parametrize("config", [BUCKETS, {"of": [1, [2, {"a": None}]], "x": 1.5}])
def test_the_repeat_command_keeps_it(tmp_path: Path, config: dict[str, Any]) -> None:
    (case,) = cases(tmp_path, f"'{json.dumps(config)}'")
    repeated = json.dumps(repeat_suite(Trial(case, 0, 0, seed=5), 60.0))
    assert parse_suite(repeated, "repeat.yaml").cases == (case,)


def test_a_stored_case_reads_back_and_has_a_hash(tmp_path: Path) -> None:
    (case,) = cases(tmp_path, json.dumps(BUCKETS))
    again = Case.model_validate_json(case.model_dump_json())
    assert again == case
    assert {case: 1}[again] == 1


@pytest.mark.parametrize("config", ["null", "{}", "{fp16: {enabled: auto}, bf16: {}}"])
def test_a_configuration_that_says_nothing_makes_no_new_case(
    tmp_path: Path, config: str
) -> None:
    (case,) = cases(tmp_path, config)
    (plain,) = parse_suite("models: ViT-Ti/16\nmode: train\n", "suite.yaml").cases
    assert case.identity == plain.identity


@pytest.mark.parametrize("mode", ["infer", "profile"])
def test_a_mode_that_does_not_train_does_not_read_it(tmp_path: Path, mode: str) -> None:
    assert config_of(tmp_path, BUCKETS, f"mode: {mode}") is None


def test_a_stack_without_deepspeed_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="3: stack: stack=ray does without DeepSpeed"):
        cases(tmp_path, json.dumps(BUCKETS), "mode: train\nstack: ray")


FULL = """mode: train
batch_size: 24
precision: bf16
parallelism: {world_size: 2, zero_stage: 3, offload: optimizer}
optimizer: {gradient_accumulation_steps: 3, gradient_clipping: 0.5}"""
DECIDED = {
    "train_batch_size": 24,
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 3,
    "gradient_clipping": 0.5,
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu"},
        "offload_param": {"device": "none"},
    },
    "bf16": {"enabled": True},
    "fp16": {"enabled": False},
    "optimizer": {"type": "AdamW", "params": {"lr": 0.001, "weight_decay": 0.05}},
}


def test_what_the_case_says_too_is_left_out(tmp_path: Path) -> None:
    assert config_of(tmp_path, DECIDED, FULL) is None


def test_what_is_auto_in_hugging_face_s_files_is_left_out(tmp_path: Path) -> None:
    config = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_clipping": "auto",
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto"}},
        "scheduler": {"type": "auto", "params": {"warmup_num_steps": "auto"}},
        "fp16": {"enabled": "auto", "initial_scale_power": 8},
        "zero_optimization": {"stage": "auto", "overlap_comm": False},
    }
    assert config_of(tmp_path, config) == {
        "fp16": {"initial_scale_power": 8},
        "zero_optimization": {"overlap_comm": False},
    }


def nested(path: str, value: object) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize(
    ("path", "value", "decided", "setting"),
    [
        ("train_batch_size", 8, "24", "batch_size"),
        ("train_micro_batch_size_per_gpu", 8, "4", "batch_size"),
        (
            "gradient_accumulation_steps",
            1,
            "3",
            "optimizer.gradient_accumulation_steps",
        ),
        ("gradient_clipping", 1.0, "0.5", "optimizer.gradient_clipping"),
        ("zero_optimization.stage", 2, "3", "parallelism.zero_stage"),
        (
            "zero_optimization.offload_optimizer.device",
            "nvme",
            '"cpu"',
            "parallelism.offload",
        ),
        (
            "zero_optimization.offload_param.device",
            "cpu",
            '"none"',
            "parallelism.offload",
        ),
        ("zero_optimization.cpu_offload", False, "true", "parallelism.offload"),
        ("bf16.enabled", False, "true", "precision"),
        ("bfloat16.enabled", False, "true", "precision"),
        ("fp16.enabled", True, "false", "precision"),
        ("amp.enabled", True, "false", "precision"),
        ("elasticity.enabled", True, "false", "batch_size"),
        ("optimizer.type", "Lamb", '"adamw"', "optimizer.kind"),
        ("optimizer.params.lr", 0.5, "0.001", "optimizer.learning_rate"),
    ],
)
def test_another_value_of_what_the_case_decides_is_refused(
    tmp_path: Path, path: str, value: object, decided: str, setting: str
) -> None:
    assert mistake(tmp_path, json.dumps(nested(path, value)), FULL) == (
        f"{path}={json.dumps(value)} is not {decided}, and is for {setting} to decide;"
        ' that is the setting to change, and "auto" would be right here'
    )


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"scheduler": {"type": "WarmupLR"}}, "fit.schedule"),
        ({"optimizer": {"params": {"betas": [0.9, 0.95]}}}, "optimizer"),
        ({"zero_optimization": True}, "parallelism.zero_stage"),
        ({"fp16": True}, "precision"),
    ],
)
def test_a_value_where_none_would_be_right_is_refused(
    tmp_path: Path, config: dict[str, Any], setting: str
) -> None:
    assert f" is for {setting} to decide; " in mistake(tmp_path, json.dumps(config))


def test_a_batch_that_is_not_known_yet_has_no_right_number(tmp_path: Path) -> None:
    largest = "mode: train\nbatch_size: max\ndevice: cuda"
    assert mistake(tmp_path, '{"train_batch_size": 8}', largest).startswith(
        "train_batch_size=8 is for batch_size to decide; "
    )


def test_a_mistake_in_a_mapping_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(
        SuiteError, match=r"^suite.yaml:5: deepspeed.fp16.enabled: fp16"
    ):
        cases(tmp_path, "\n  overlap_comm: true\n  fp16: {enabled: true}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1,\n', "ds.json:2 is not JSON: Expecting property name"),
        ("[1]", "ds.json is not a JSON object of DeepSpeed's keys"),
        ('{"a": 1, "a": 2}', "ds.json: the key 'a' stands twice in one object"),
        ('{"a": NaN}', "ds.json: NaN is not a finite number"),
        ('{"a": 1e999}', "ds.json: 1e999 is not a finite number"),
        ('{"a": 1%s}' % ("0" * 5000), "ds.json: the number 1000"),
        ('{"a": "\\ud800"}', "a holds characters that no text can"),
        ("[" * 60_000, "ds.json is nested deeper than 20"),
        ('{"a":' * 30 + "1" + "}" * 30, "a.a.a.a"),
        (" " * 65_537, "ds.json is larger than 64 KiB, which no configuration needs"),
        (b'{"a":\n"\xff"}', "ds.json:2 is not UTF-8 text"),
        ('{"comet": {"api_key": "x"}}', "comet.api_key would be stored with the"),
    ],
)
def test_what_is_no_configuration_is_one_sentence(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    assert mistake(tmp_path, content).startswith(message)


@pytest.mark.parametrize("name", ["no.json", "/dev/null", "."])
def test_what_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    message = f"suite.yaml:3: deepspeed: there is no file {tmp_path / name}"
    with pytest.raises(SuiteError) as caught:
        cases(tmp_path, name)
    assert str(caught.value) == message
