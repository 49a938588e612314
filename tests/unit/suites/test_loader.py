"""Suites from YAML: axes, include and exclude, and mistakes told by line."""

import hashlib
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest

from tlbench.errors import SuiteError
from tlbench.suites import loader
from tlbench.suites.loader import (
    BuiltIn,
    builtin_suites,
    load_suite,
    parse_suite,
    repeat_suite,
)
from tlbench.suites.mistakes import MAX_MISTAKES
from tlbench.suites.names import model_name, parse_model
from tlbench.suites.spec import MODES, Case, Mode, Suite, Trial

REPEATS: dict[Mode, int] = {
    "profile": 1,
    "infer": 5,
    "train": 5,
    "fit": 5,
    "fewshot": 1,
    "evaluate": 1,
}
"""What a suite has that says nothing of them."""
MODE_WORDS = ", ".join(MODES)


def parse(text: str) -> Suite:
    return parse_suite(dedent(text), "suite.yaml")


def outline(suite: Suite) -> list[tuple[str, str, int]]:
    """Model, mode and batch of each case."""
    return [(model_name(c.model), c.mode, c.global_batch_size) for c in suite.cases]


def mistakes(text: str) -> list[str]:
    """What is wrong with a suite, without the name of its file."""
    with pytest.raises(SuiteError) as caught:
        parse(text)
    return [line.removeprefix("suite.yaml:") for line in str(caught.value).split("\n")]


# ---------------------------------------------------------------- what a file means


def test_suite_of_one_case_has_the_defaults() -> None:
    suite = parse("models: ViT-B/16\nmode: infer")
    assert suite == Suite(
        name="suite",
        cases=(Case(model=parse_model("ViT-B/16"), mode="infer"),),
        repeats=REPEATS,
    )


def test_suite_has_its_own_fields() -> None:
    suite = parse("""
        name: mine
        description: What it is for.
        models: ViT-B/16
        mode: infer
        repeats: {infer: 3}
        seed: 7
        trial_timeout_s: 60
    """)
    assert (suite.name, suite.description) == ("mine", "What it is for.")
    assert suite.repeats == {**REPEATS, "infer": 3}
    assert (suite.seed, suite.trial_timeout_s) == (7, 60.0)


def test_paths_are_relative_to_the_folder_of_the_suite(tmp_path: Path) -> None:
    text = """
        models: ViT-B/16
        mode: infer
        paths: {mnist: data/mnist, imagenet-1k: /big/imagenet, mine: 's3://bucket/x'}
        storage: kept
    """
    suite = parse_suite(dedent(text), "suite.yaml", tmp_path / "suites")
    assert suite.paths == {
        "mnist": str(tmp_path / "suites/data/mnist"),
        "imagenet-1k": "/big/imagenet",
        "mine": "s3://bucket/x",
    }
    assert suite.storage == str(tmp_path / "suites/kept")


def test_paths_are_no_part_of_a_case() -> None:
    text = "models: ViT-B/16\nmode: infer\n"
    (plain,) = parse(text).cases
    (case,) = parse(text + "paths: {synthetic: here}\nstorage: there").cases
    assert case.identity == plain.identity


def test_one_number_of_repeats_is_for_all_modes_but_profile() -> None:
    suite = parse("models: ViT-B/16\nmode: infer\nrepeats: 3")
    assert suite.repeats == {**dict.fromkeys(MODES, 3), "profile": 1}


def test_lists_are_axes_with_models_outermost_and_then_in_the_order_of_the_file() -> (
    None
):
    suite = parse("""
        batch_size: [8, 32]
        mode: [infer, train]
        models: [ViT-S/16, ViT-B/16]
    """)
    assert outline(suite) == [
        (model, mode, batch)
        for model in ("ViT-S/16", "ViT-B/16")
        for batch in (8, 32)
        for mode in ("infer", "train")
    ]


def test_list_inside_a_group_is_an_axis() -> None:
    suite = parse("""
        models: ViT-B/16
        mode: train
        parallelism: {world_size: [1, 2], zero_stage: [0, 3]}
    """)
    spread = [(c.parallelism.world_size, c.parallelism.zero_stage) for c in suite.cases]
    assert spread == [(1, 0), (1, 3), (2, 0), (2, 3)]


def test_braces_in_a_name_make_several_models() -> None:
    suite = parse("""
        models:
          - ViT-B/16{,+TL{8,16}@{0,1/4}}
        mode: infer
    """)
    assert [model_name(c.model) for c in suite.cases] == [
        "ViT-B/16",
        "ViT-B/16+TL8@0",
        "ViT-B/16+TL8@3",
        "ViT-B/16+TL16@0",
        "ViT-B/16+TL16@3",
    ]


def test_model_is_spelled_out_with_axes_and_short_forms() -> None:
    suite = parse("""
        models:
          - name: tiny
            patch_size: 2
            image_size: 16
            embed_dim: 96
            depth: 8
            num_heads: 3
            token_learner: [null, TL8@1/4, {num_tokens: [8, 16], place: 4}]
        mode: infer
    """)
    assert [model_name(c.model) for c in suite.cases] == [
        "tiny",
        "tiny+TL8@2",
        "tiny+TL8@4",
        "tiny+TL16@4",
    ]
    assert {c.model.mlp_dim for c in suite.cases} == {4 * 96}


def test_include_overrides_the_top_level_inside_groups_too() -> None:
    suite = parse("""
        models: ViT-B/16
        mode: infer
        parallelism: {world_size: 2}
        include:
          - mode: train
            parallelism: {zero_stage: [1, 2]}
          - models: ViT-S/16
            batch_size: 16
    """)
    assert outline(suite) == [
        ("ViT-B/16", "infer", 8),
        ("ViT-B/16", "train", 8),
        ("ViT-B/16", "train", 8),
        ("ViT-S/16", "infer", 16),
    ]
    spread = [(c.parallelism.world_size, c.parallelism.zero_stage) for c in suite.cases]
    assert spread == [(2, 0), (2, 1), (2, 2), (2, 0)]


def test_top_level_without_a_mode_only_serves_the_includes() -> None:
    suite = parse("""
        models: ViT-B/16
        batch_size: 4
        include: [{mode: infer}, {mode: train, batch_size: 16}]
    """)
    assert outline(suite) == [("ViT-B/16", "infer", 4), ("ViT-B/16", "train", 16)]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (
            "{mode: train, batch_size: 32}",
            "infer8 infer32 train8 TLinfer8 TLinfer32 TLtrain8",
        ),
        (
            "{models: ViT-B/16, mode: [infer, train]}",
            "TLinfer8 TLinfer32 TLtrain8 TLtrain32",
        ),
        ("{models: 'ViT-B/16+TL8@1/4'}", "infer8 infer32 train8 train32"),
        (
            "{models: '*+TL?@*', batch_size: 8}",
            "infer8 infer32 train8 train32 TLinfer32 TLtrain32",
        ),
        ("{precision: fp32, batch_size: 32}", "infer8 train8 TLinfer8 TLtrain8"),
        (
            "{parallelism: {world_size: 1}, mode: infer}",
            "train8 train32 TLtrain8 TLtrain32",
        ),
    ],
)
def test_exclude_drops_the_cases_that_agree_in_all_it_gives(
    exclude: str, left: str
) -> None:
    suite = parse(f"""
        models: [ViT-B/16, ViT-B/16+TL8@1/4]
        mode: [infer, train]
        batch_size: [8, 32]
        exclude:
          - {exclude}
    """)
    assert left.split() == [
        f"{'TL' if c.model.token_learner else ''}{c.mode}{c.batch_size}"
        for c in suite.cases
    ]


def test_exclude_counts_a_case_as_it_was_asked_for() -> None:
    # profile reads no batch size: dropping one of two leaves the other's profile.
    suite = parse("""
        models: ViT-B/16
        mode: profile
        batch_size: [8, 32]
        exclude: {batch_size: 8}
    """)
    assert len(suite.cases) == 1


def test_exclude_may_drop_what_would_be_a_mistake() -> None:
    suite = parse("""
        models: ViT-B/16
        mode: train
        batch_size: [1, 8]
        parallelism: {world_size: [1, 2]}
        exclude: {batch_size: 1, parallelism: {world_size: 2}}
    """)
    assert len(suite.cases) == 3


def test_identical_cases_are_kept_once() -> None:
    suite = parse("""
        models: [ViT-B/16, "ViT-B/16[12]@224"]
        mode: [profile, infer]
        optimizer: {learning_rate: [1e-3, 1e-4]}
    """)
    assert outline(suite) == [("ViT-B/16", "profile", 8), ("ViT-B/16", "infer", 8)]


def test_order_of_keys_does_not_change_the_cases() -> None:
    lines = ["models: ViT-B/16", "mode: train", "batch_size: 4", "precision: bf16"]
    forwards, backwards = parse("\n".join(lines)), parse("\n".join(reversed(lines)))
    assert forwards.cases == backwards.cases


# ---------------------------------------------------------------- mistakes

VALID = "models: ViT-B/16\nmode: infer\n"
SHORT = "models: {patch_size: 16, embed_dim: 64, num_heads: 2, depth: 6,"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "models: ViT-B/16\nmode:\n  - infer\n  - trian\n",
            f"4: mode: 'trian' is not one of {MODE_WORDS}",
        ),
        (
            VALID + "precision: fp61",
            "3: precision: 'fp61' is not one of fp32, tf32, bf16, fp16",
        ),
        (
            VALID + "batch_size: eight",
            "3: batch_size: 'eight' is neither a whole number nor max",
        ),
        (VALID + "batch_size: [8,\n  0]", "4: batch_size: 0 is not greater than 0"),
        (VALID + "batch_size: 1e3", "3: batch_size: 1e3 is not a whole number"),
        (VALID + "batch_size:", "3: batch_size: null is not a whole number"),
        (
            VALID + "batch_size: 99999999999",
            "3: batch_size: 99999999999 is not at most 1000000",
        ),
        (VALID + "compile: yes", "3: compile: 'yes' is not true or false"),
        (
            VALID + "precison: bf16",
            "3: precison: is not a known key; did you mean 'precision'?",
        ),
        (
            VALID + "timing:\n  max_step: 3",
            "4: timing.max_step: is not a known key; did you mean 'max_steps'?",
        ),
        (VALID + "timing: fast", "3: timing: 'fast' is not a mapping"),
        (
            VALID + "timing:\n  target: .nan",
            "4: timing.target: .nan is not a finite number",
        ),
        (VALID + "timing: {target: 1}", "3: timing.target: 1 is not less than 1"),
        (
            VALID + "timing:\n  max_steps: 20\n  min_steps: 50",
            "5: timing.min_steps: min_steps=50 exceeds max_steps=20",
        ),
        (
            VALID + "parallelism:\n  world_size: 3",
            "4: parallelism.world_size: batch_size=8 does not divide into 3 parts"
            " (parallelism.world_size=3 x optimizer.gradient_accumulation_steps=1)",
        ),
        (
            VALID + "parallelism: {zero_stage: true}",
            "3: parallelism.zero_stage: true is not one of 0, 1, 2, 3",
        ),
        (VALID + "seed: -1", "3: seed: -1 is not at least 0"),
        (
            VALID + "seed: 2147483647",
            "3: seed: seed=2147483647 leaves the last repeat with 2147483651, which is"
            " not below 2147483648",
        ),
        (VALID + "name: [a]", "3: name: a list is not a text"),
        (VALID + "name: ''", "3: name: '' is empty"),
        (
            VALID + "name: ' x'",
            "3: name: ' x' is not a name: it has blanks at an end,"
            " or characters that cannot be printed",
        ),
        (VALID + "paths: here", "3: paths: 'here' is not a mapping"),
        (VALID + "paths:\n  mnist: 3", "4: paths.mnist: 3 is not a text"),
        (VALID + "storage: [a]", "3: storage: a list is not a text"),
        (
            VALID + "paths:\n  mnist: sftp://me:secret@host/mnist",
            "4: paths.mnist: the URL holds a password, which would be stored with the"
            " results; fsspec takes it from its own configuration too",
        ),
        (
            VALID + "repeats:\n  inferr: 3",
            "4: repeats.inferr: is not a known key; did you mean 'infer'?",
        ),
        (VALID + "repeats: 0", "3: repeats: 0 is not greater than 0"),
        (
            VALID + "repeats: {profile: 2}",
            "3: repeats.profile: 2 is not 1; profile always gives the same",
        ),
        (
            "models: ViT-B/16\n",
            f"1: mode: is missing; one of {MODE_WORDS} would be right",
        ),
        ("mode: infer\n", "1: models: is missing; models: ViT-B/16 would be right"),
        (
            "models: ViT-B/16\ninclude:\n  - batch_size: 4",
            f"3: include.mode: is missing; one of {MODE_WORDS} would be right",
        ),
        (VALID + "include: 3", "3: include: 3 is not a mapping of settings"),
        (
            VALID + "include:\n  - {mode: trian}",
            f"4: include.mode: 'trian' is not one of {MODE_WORDS}",
        ),
        (
            VALID + "include:\n  - {trial_timeout_s: 3}",
            "4: include.trial_timeout_s: holds for the suite: it stands at its top",
        ),
        (
            VALID + "exclude:\n  - {mode: fit}",
            "4: exclude: drops no case of this suite",
        ),
        (VALID + "exclude: {mode: infer}", "3: exclude: leaves no case in the suite"),
        (
            VALID + "exclude: {precision: fp61}",
            "3: exclude.precision: 'fp61' is not one of fp32, tf32, bf16, fp16",
        ),
        (
            VALID + "exclude: {models: 3}",
            "3: exclude.models: 3 is not a name or a pattern of names",
        ),
        (
            "mode: infer\nmodels:\n  - ViT-B/16\n  - ViT-b/16",
            "4: models: 'ViT-b/16' cannot be built: 'b' is not one of"
            " Ti, S, B, L, H, g, G; did you mean 'B'?",
        ),
        (
            "mode: infer\nmodels: [ViT-B/16, 18]",
            "2: models: 18 is not a model;"
            " a name with brackets or commas wants quotes here",
        ),
        (
            SHORT + "\n  token_learner: TL8@1/4}\nmode: infer",
            "2: models.token_learner: 'TL8@1/4' cannot be built: 1/4 of 6 blocks"
            " is not a whole block; place 1 or 2 would be right",
        ),
        (
            SHORT + "\n  token_learner: TL8@7}\nmode: infer",
            "2: models.token_learner: token_learner.place=7 lies beyond the 6 blocks;"
            " 0 to 6 would be right",
        ),
        (
            SHORT + "\n  name: ViT-B/16}\nmode: infer",
            "2: models.name: 'ViT-B/16' stands for a model of other sizes;"
            " another name, or none, would be right",
        ),
        (
            SHORT + "\n  name: tiny, image_size: [32, 64]}\nmode: infer",
            "2: models.name: 'tiny' stands for a model of other sizes;"
            " another name, or none, would be right",
        ),
        (
            "models:\n  - patch_size: 16\nmode: infer",
            "2: models.depth: is missing",
        ),
        (
            "- ViT-B/16",
            "1: a list is not a suite; a mapping with models and mode would be right",
        ),
        (
            "just words",
            "1: 'just words' is not a suite;"
            " a mapping with models and mode would be right",
        ),
    ],
)
def test_mistake_is_told_by_line_field_and_value(text: str, expected: str) -> None:
    assert mistakes(text)[0] == expected


def test_all_mistakes_are_told_in_the_order_of_the_file() -> None:
    assert mistakes("""\
        mode: infr
        models: [ViT-Q/16, ViT-B/16]
        batch_size: [eight, 8, 0]
        seed: x
    """) == [
        f"1: mode: 'infr' is not one of {MODE_WORDS}",
        "2: models: 'ViT-Q/16' cannot be built: 'Q' is not one of Ti, S, B, L, H, g, G",
        "3: batch_size: 'eight' is neither a whole number nor max",
        "3: batch_size: 0 is not greater than 0",
        "4: seed: 'x' is not a whole number",
    ]


def test_very_many_mistakes_are_cut_short() -> None:
    lines = mistakes(VALID + "".join(f"key{n}: 1\n" for n in range(100)))
    assert len(lines) == MAX_MISTAKES + 1
    assert lines[-1] == " 80 more of the kind"


def test_mistake_inside_a_merged_mapping_is_told_where_it_is_written() -> None:
    assert mistakes("""\
        models: ViT-B/16
        include:
          - &base
            mode: infr
          - <<: *base
    """) == [f"4: include.mode: 'infr' is not one of {MODE_WORDS}"]


MANY = list(range(1, 102))  # 101 x 101 models, 101 x 2 exclusions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "models: 'ViT-B/16+TL{1..99}@{0..12}'\nmode: infer\nbatch_size: [1,2,3,4,"
            "5,6,7,8]",
            "1: the suite has more than 10000 cases",
        ),
        (
            "models: ['ViT-B/16+TL{1..600}@{0..9}', 'ViT-S/16+TL{1..600}@{0..9}']\n"
            "mode: infer",
            "1: models: gives more than 10000 models",
        ),
        (
            "models: 'ViT-B/16+TL{1..9999}@{0..12}'\nmode: infer",
            "1: models: 'ViT-B/16+TL{1..9999}@{0..12}' expands to"
            " more than 10000 names",
        ),
        (
            f"models: {{patch_size: {MANY}, depth: {MANY}}}\nmode: infer",
            "1: models: gives more than 10000 models",
        ),
        (
            VALID + f"exclude: {{batch_size: {MANY}, precision: [fp32, bf16]}}",
            "3: exclude: has more than 200 entries",
        ),
        (
            VALID + "exclude: {models: 'ViT-S/{1..201}'}",
            "3: exclude: names more than 200 models",
        ),
        (
            f"{VALID}repeats: {{infer: 10000}}\nbatch_size: {MANY}",
            "3: repeats: gives 1,010,000 trials, more than 1,000,000",
        ),
        (
            f"models: 'ViT-B/16[{{1..1000}}]@{{224..229}}'\nmode: infer\n"
            f"scales: {{{', '.join(f's{n}: {{seed: {n}}}' for n in range(9))}}}",
            "3: scales: have more than 50000 cases in all",
        ),
    ],
)
def test_absurdly_many_models_cases_or_exclusions_are_refused(
    text: str, message: str
) -> None:
    assert mistakes(text) == [message]


# ---------------------------------------------------------------- where suites are


def test_looking_ends_when_there_are_mistakes_enough() -> None:
    text = f"{VALID}batch_size: {list(range(-1000, 0))}"
    with pytest.raises(SuiteError, match=r": 180 more of the kind$"):
        parse_suite(text, "s.yaml")


def test_width_of_the_mlp_that_follows_from_another_field_is_told() -> None:
    text = (
        "models: {patch_size: 16, embed_dim: 40000, depth: 1, num_heads: 1}\n"
        "mode: infer"
    )
    assert mistakes(text) == ["1: models: mlp_dim=160000 is not at most 65536"]


def test_list_of_places_is_told_the_short_form() -> None:
    text = (
        "models: {patch_size: 16, embed_dim: 8, depth: 4, num_heads: 1,"
        " grid_pool: {window: 2, places: 3}}\nmode: infer"
    )
    assert mistakes(text) == [
        "1: models.grid_pool.places: 3 cannot stand there; grid_pool: pool2@3,6 would"
        " be right"
    ]


@pytest.mark.parametrize(
    ("file", "name"),
    [("a\nb.yaml", r"a\nb"), (" .yaml", "suite"), ("x" * 250, "x" * 200)],
)
def test_suite_is_called_after_its_file_as_far_as_that_is_a_name(
    tmp_path: Path, file: str, name: str
) -> None:
    (tmp_path / file).write_text(VALID)
    assert load_suite(str(tmp_path / file)).name == name


def test_path_stands_on_one_line_of_a_message(tmp_path: Path) -> None:
    (tmp_path / "a\nb.yaml").write_text("mode: x")
    with pytest.raises(SuiteError, match=r"^'.*a\\nb\.yaml':1: models: is"):
        load_suite(str(tmp_path / "a\nb.yaml"))


def test_pipe_without_a_writer_is_an_empty_suite(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SuiteError, match="pipe:1: is empty"):
        load_suite(str(tmp_path / "pipe"))


def test_pipe_is_read_until_its_writer_has_ended() -> None:
    reading, writing = os.pipe()
    with ThreadPoolExecutor() as reader:
        loaded = reader.submit(load_suite, f"/dev/fd/{reading}")
        os.write(writing, VALID.encode())
        os.close(writing)
        assert len(loaded.result().cases) == 1
    os.close(reading)


def test_suite_is_read_from_a_path_and_called_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(VALID)
    assert load_suite(str(path)).name == "mine"


def test_suite_is_read_from_standard_input() -> None:
    assert load_suite("-", VALID).name == "stdin"
    with pytest.raises(SuiteError, match=r"^stdin:3: seed: 'x' is not a whole number$"):
        load_suite("-", VALID + "seed: x")
    with pytest.raises(SuiteError, match="no suite on standard input"):
        load_suite("-")


@pytest.fixture
def built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with one built-in suite, `quick`."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "spec.py").write_text("")
    (folder / "quick.yaml").write_text(
        "description: |\n  First.\n  Second.\nscales: {cpu: {batch_size: 1}}\n" + VALID
    )
    monkeypatch.setattr(loader, "files", lambda package: folder)
    return folder


@pytest.mark.usefixtures("built_in")
def test_built_in_suite_is_found_by_name() -> None:
    assert builtin_suites() == {"quick": BuiltIn("First.", ("cpu",))}
    assert load_suite("quick").name == "quick"


@pytest.mark.usefixtures("built_in")
def test_unknown_suite_names_the_built_in_ones() -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite("quik")
    assert str(caught.value) == (
        "'quik' is neither a file nor a built-in suite (quick); did you mean 'quick'?"
    )


def test_every_built_in_suite_can_be_read_and_says_what_it_is() -> None:
    for name, item in builtin_suites().items():
        assert load_suite(name).name == name
        assert item.description


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"models: \xff\n")
    with pytest.raises(SuiteError, match=r"bad\.yaml:1: is not UTF-8 text$"):
        load_suite(str(path))


def test_file_without_an_end_is_refused() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero on this machine")
    with pytest.raises(SuiteError, match=r"^/dev/zero: is larger than 1 MiB"):
        load_suite("/dev/zero")


def test_folder_is_no_suite(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"cannot be read: Is a directory$"):
        load_suite(str(tmp_path))


def test_path_with_a_null_character_is_refused() -> None:
    with pytest.raises(SuiteError, match="cannot be read: embedded null"):
        load_suite("a\x00b")


# ---------------------------------------------------------------- repeating a trial


@pytest.mark.parametrize(
    "text",
    [
        "models: ViT-B/16+TL8@1/4\nmode: train\noptimizer: {learning_rate: 1e-5}",
        "models: 'ViT-L/16[24+11]@512+TL16v1meanfuse@12'\nmode: profile",
        SHORT
        + "name: 'my: model', token_learner: TL8v1@2}\nmode: infer\ncompile: true",
        SHORT + "}\nmode: fit\ndata: digits\nparallelism: {world_size: 2}",
    ],
)
def test_repeat_suite_reads_back_as_the_one_case(text: str) -> None:
    (case,) = parse(text).cases
    trial = Trial(case=case, repeat=2, position=9, seed=44)
    suite = parse_suite(json.dumps(repeat_suite(trial, 60.0)), "repeat.yaml")
    assert suite.cases == (case,)
    assert suite.cases[0].identity == case.identity
    assert model_name(suite.cases[0].model) == model_name(case.model)
    assert suite.repeats[case.mode] == 1
    assert (suite.seed, suite.trial_timeout_s) == (44, 60.0)


def test_repeat_suite_says_where_data_lie_and_trains_anew() -> None:
    (case,) = parse("models: ViT-B/16\nmode: fit\ndata: imagenet-1k").cases
    trial = Trial(case, 0, 0, 7, data_path="/big/imagenet", storage="s3://bucket/x")
    suite = parse_suite(json.dumps(repeat_suite(trial, 60.0)), "repeat.yaml")
    assert suite.cases == (case,)
    assert suite.paths == {"imagenet-1k": "/big/imagenet"}
    assert suite.storage is None


# ---------------------------------------------------------------- anything at all

SEEDS = [
    VALID + "batch_size: [8, 32]\nparallelism: {world_size: [1, 2]}\nrepeats: 3\n",
    SHORT + " token_learner: [null, TL8@1/2]}\nmode: [infer, train]\nseed: 3\n",
    "models: ViT-B/16{,+TL8@1/4}\ninclude:\n  - &a {mode: infer}\n  - {<<: *a}\n"
    "exclude:\n  - {models: '*+TL*'}\n",
    VALID + "scales:\n  cpu: {batch_size: [1, 2], timing: {min_steps: 6}}\n",
]
PIECES = [
    *("{", "}", "[", "]", ",", ":", "-", "&a ", "*a", "<<: ", "!!int ", "? ", "|", ">"),
    *("'", '"', "\\", "\n", "\t", " ", "#", "%YAML 1.1\n", "---\n", "...\n", "\0"),
    *("null", "1e-3", ".inf", "-.nan", "9" * 30, "true", "é", "\ud800", '"\\ud800"'),
    *("models", "mode", "ViT-B/16", "+TL8", "@1/4", "{1..9999}", "name: ", "\u2028"),
]


def test_mutated_suites_are_read_or_refused_in_lines_of_their_own() -> None:
    dice = random.Random(20210621)
    read = 0
    for _ in range(4000):
        text = dice.choice(SEEDS)
        for _ in range(dice.randint(0, 4)):
            start = dice.randrange(len(text) + 1)
            end = start + dice.choice((0, 0, 1, 5))
            text = text[:start] + dice.choice(PIECES) + text[end:]
        try:
            read += bool(parse_suite(text, "fuzz.yaml").cases)
        except SuiteError as error:
            for line in str(error).split("\n"):
                assert line.startswith("fuzz.yaml:"), (text, line)
    assert 100 < read < 3900


# ---------------------------------------------------------------- scales

SCALED = """\
name: two sizes
models: [ViT-B/16, ViT-B/16+TL8@3]
mode: [infer, train]
precision: bf16
batch_size: [8, 16]
parallelism: {world_size: 4, zero_stage: 1}
repeats: {infer: 7}
scales:
  cpu:
    models: ViT-S/16
    precision: fp32
    batch_size: [1, 2]
    parallelism: {world_size: 1}
    repeats: {train: 2}
  profile:
    mode: profile
"""


def test_file_without_a_chosen_scale_is_read_as_it_stands() -> None:
    plain = SCALED.partition("scales:")[0]
    assert parse_suite(SCALED, "suite.yaml") == parse_suite(plain, "suite.yaml")


def test_scale_replaces_what_it_gives_and_merges_groups() -> None:
    suite = parse_suite(SCALED, "suite.yaml", scale="cpu")
    # In the order of the file: mode varies slower than batch_size.
    assert outline(suite) == [
        ("ViT-S/16", "infer", 1),
        ("ViT-S/16", "infer", 2),
        ("ViT-S/16", "train", 1),
        ("ViT-S/16", "train", 2),
    ]
    assert {case.precision for case in suite.cases} == {"fp32"}
    spread = suite.cases[-1].parallelism
    assert (spread.world_size, spread.zero_stage) == (1, 1)
    assert suite.repeats == {**REPEATS, "train": 2}


def test_scale_replaces_include_and_exclude_whole() -> None:
    suite = parse_suite(
        dedent("""
            models: [ViT-S/16, ViT-B/16]
            include: {mode: infer, batch_size: 4}
            exclude: {models: ViT-S/16}
            scales:
              small:
                include: {mode: train}
                exclude: {models: ViT-B/16}
        """),
        "suite.yaml",
        scale="small",
    )
    assert outline(suite) == [("ViT-S/16", "train", 8)]


def test_name_of_the_suite_tells_the_scale() -> None:
    assert parse_suite(SCALED, "suite.yaml").name == "two sizes"
    assert parse_suite(SCALED, "suite.yaml", scale="cpu").name == "two sizes (cpu)"
    unnamed = VALID + "scales: {cpu: {batch_size: 1}}"
    assert parse_suite(unnamed, "mine.yaml", scale="cpu").name == "mine (cpu)"


@pytest.mark.parametrize(
    ("text", "scale", "message"),
    [
        (
            SCALED,
            "cpus",
            "'cpus' is not one of its scales (cpu, profile); did you mean 'cpu'?",
        ),
        (SCALED, "x", "'x' is not one of its scales (cpu, profile)"),
        (VALID, "cpu", "'cpu' is not one of its scales (it has none)"),
    ],
)
def test_unknown_scale_names_the_known_ones(
    text: str, scale: str, message: str
) -> None:
    with pytest.raises(SuiteError) as caught:
        parse_suite(text, "suite.yaml", scale=scale)
    assert str(caught.value) == f"suite.yaml: {message}"


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ("cpu", "3: scales: 'cpu' is not a mapping from scales to settings"),
        ("{cpu: fast}", "3: scales.cpu: 'fast' is not a mapping of settings"),
        (
            "{on a cpu: {batch_size: 1}}",
            "3: scales.'on a cpu': is not called by one word, such as cpu",
        ),
        (
            "{cpu: {batch_sise: 1}}",
            "3: scales.cpu.batch_sise: is not a known key; did you mean 'batch_size'?",
        ),
        (
            "{cpu: {batch_size: 0}}",
            "3: scales.cpu.batch_size: 0 is not greater than 0 (at scale cpu)",
        ),
        (
            f"{{{', '.join(f's{n}: {{seed: 1}}' for n in range(21))}}}",
            "3: scales: has more than 20 scales",
        ),
    ],
)
def test_every_scale_is_checked_whichever_is_asked_for(
    scales: str, expected: str
) -> None:
    assert mistakes(f"{VALID}scales: {scales}") == [expected]


@pytest.mark.parametrize("key", ["name", "scales"])
def test_scale_has_neither_a_name_nor_scales_of_its_own(key: str) -> None:
    (mistake,) = mistakes(f"{VALID}scales: {{cpu: {{{key}: cpu}}}}")
    assert mistake.startswith(f"3: scales.cpu.{key}: is not a known key")


def test_mistake_that_only_a_scale_has_is_told_with_it() -> None:
    assert mistakes("""\
        models: [ViT-S/16, ViT-B/16]
        mode: infer
        precision: fp61
        exclude: {models: ViT-S/16}
        scales: {cpu: {precision: fp32, models: ViT-B/16}}
    """) == [
        "3: precision: 'fp61' is not one of fp32, tf32, bf16, fp16",
        "4: exclude: drops no case of this suite (at scale cpu)",
    ]


def test_scale_of_a_suite_is_read_from_a_path_and_from_standard_input(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SCALED)
    read = [load_suite(str(path), scale="cpu"), load_suite("-", SCALED, "cpu")]
    assert [suite.cases[0].model.embed_dim for suite in read] == [384, 384]


# ---------------------------------------------------------------- users' builders

BUILDER = "def build(model, keep=64):\n    return model\n"


def test_files_of_builders_are_found_beside_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "my.py").write_text(BUILDER)
    (tmp_path / "suite.yaml").write_text(
        "models: [my.py:build, ViT-S/16+my.py:build(keep=9), ViT-S/16]\nmode: infer"
    )
    suite = load_suite("../suite.yaml")
    assert suite.sources == {"my.py": BUILDER}
    builders = [case.model.builder for case in suite.cases]
    digest = hashlib.sha256(BUILDER.encode()).hexdigest()
    assert [b and b.sha256 for b in builders] == [digest, digest, None]
    assert model_name(suite.cases[0].model) == "ViT-B/16+my.py:build"


def test_files_of_builders_on_standard_input_are_found_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.py").write_text(BUILDER)
    monkeypatch.chdir(tmp_path)
    suite = load_suite("-", "{models: 'my.py:build', mode: infer}")
    assert suite.sources == {"my.py": BUILDER}


def test_edited_code_is_another_case(tmp_path: Path) -> None:
    identities = set()
    for text in (BUILDER, BUILDER + "# faster\n"):
        (tmp_path / "my.py").write_text(text)
        suite = parse_suite("{models: my.py:build, mode: infer}", "suite", tmp_path)
        identities.add(suite.cases[0].identity)
    assert len(identities) == 2


def test_mistakes_in_builders_are_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(BUILDER)
    (tmp_path / "broken.py").write_text("def build(model:\n")
    text = dedent("""\
        models:
          - my.py:build
          - my.py:biuld
          - broken.py:build
          - ViT-B/16+tomee(r=8)
          - {patch_size: 4, embed_dim: 8, num_heads: 1, depth: 2, token_learner: TL8@1,
             builder: {function: build, file: missing.py}}
        mode: infer
    """)
    with pytest.raises(SuiteError) as caught:
        parse_suite(text, "suite.yaml", tmp_path)
    assert str(caught.value).splitlines() == [
        "suite.yaml:3: models: 'ViT-B/16+my.py:biuld' cannot be built: my.py defines no"
        " function 'biuld' at its top level; did you mean 'build'?",
        "suite.yaml:4: models: 'ViT-B/16+broken.py:build' cannot be built:"
        " broken.py:1 is not Python: '(' was never closed",
        "suite.yaml:5: models: 'ViT-B/16+tomee(r=8)' cannot be built: 'tomee' is not"
        " one of tlbench's builders, tome, random, stride, fixed; did you mean 'tome'?",
        "suite.yaml:7: models.builder: 'ViT-d8h1m32l2/4+TL8@1+missing.py:build' cannot"
        f" be built: there is no file {tmp_path}/missing.py",
    ]


BUILT = "{patch_size: 4, embed_dim: 8, num_heads: 1, depth: 2, builder:\n  %s}"


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (
            "{function: tome, options: {r: null}}",
            "builder.options.r: null is not a finite number, true, false or a word",
        ),
        (
            "{function: tome, options: {r: .nan}}",
            "builder.options.r: NaN is not a finite number, true, false or a word",
        ),
        (
            "{function: tome, options: {r: {a: 1}}}",
            'builder.options.r: {"a": 1} is not a finite number, true, false or a word',
        ),
        (
            "{function: tome, options: {r: '8'}}",
            "builder.options.r: '8' is a text, and in the model's name it would be the"
            " value 8; 8 without quotes would be right",
        ),
        (
            '{function: tome, options: {r: "a\\nb"}}',
            "builder.options.r: 'a\\nb' is not a word: it has blanks at an end, or"
            " characters that cannot be printed",
        ),
        (
            "{function: tome, options: {a-b: 8}}",
            "builder.options.a-b: 'a-b' is not a name that Python code could define",
        ),
        (
            "{function: to me}",
            "builder.function: 'to me' is not a name that Python code could define",
        ),
        (
            "{function: random, options: {keep: 4, place: 2}}",
            "builder: 'ViT-d8h1m32l2/4+random(keep=4,place=2)' cannot be built:"
            " random(place=2) makes no sense: the index of a block from 0 to 1 would be"
            " right",
        ),
    ],
)
def test_what_a_builder_cannot_be_called_with_is_one_sentence(
    builder: str, message: str
) -> None:
    with pytest.raises(SuiteError) as caught:
        parse_suite(f"models: {BUILT % builder}\nmode: infer", "suite.yaml")
    assert str(caught.value) == f"suite.yaml:2: models.{message}"


@pytest.mark.parametrize(
    "model",
    [
        "'ViT-B/16+tome(r=8)'",
        "'ViT-S/16@384+my.py:build(keep=9)'",
        "{name: mini, patch_size: 4, image_size: 28, embed_dim: 8, num_heads: 1,"
        " depth: 2, builder: {function: build, file: my.py, options: {keep: 3}}}",
    ],
)
def test_repeat_suite_reads_back_the_case_of_a_builder(
    tmp_path: Path, model: str
) -> None:
    (tmp_path / "my.py").write_text(BUILDER)
    suite = parse_suite(f"{{models: {model}, mode: infer}}", "suite.yaml", tmp_path)
    trial = Trial(suite.cases[0], repeat=0, position=0, seed=7)
    text = json.dumps(repeat_suite(trial, 60.0))
    assert parse_suite(text, "repeat", tmp_path).cases == suite.cases


def test_repeat_suite_refuses_a_file_that_was_edited_since(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(BUILDER)
    suite = parse_suite("{models: my.py:build, mode: infer}", "suite.yaml", tmp_path)
    trial = Trial(suite.cases[0], repeat=0, position=0, seed=7)
    text = json.dumps(repeat_suite(trial, 60.0))
    (tmp_path / "my.py").write_text(BUILDER + "# edited\n")
    with pytest.raises(SuiteError) as caught:
        parse_suite(text, "repeat", tmp_path)
    (mistake,) = str(caught.value).splitlines()
    assert "'ViT-B/16+my.py:build' cannot be built: my.py has changed" in mistake


def test_sources_of_a_stored_suite_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(BUILDER)
    text = "{models: 'my.py:build(keep=9,share=0.5,is_on=true,kind=x)', mode: infer}"
    (tmp_path / "my.py").write_text("def build(model, **options): ...\n")
    suite = parse_suite(text, "suite.yaml", tmp_path)
    stored = json.dumps(suite.model_dump(mode="json"))
    assert Suite.model_validate_json(stored) == suite
