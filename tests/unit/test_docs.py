"""README and docs say what the code does: commands, settings, models, examples."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main
import yaml
from sqlalchemy import text

from support import gallery_table
from tlbench.cli import app
from tlbench.db.models import Base
from tlbench.db.store import ResultStore
from tlbench.errors import SuiteError
from tlbench.models import cost
from tlbench.reports.cases import PREDICTED_MEMORY
from tlbench.reports.quantities import DIRECTIONS, QUANTITIES, STAGES
from tlbench.result import STATUSES, Metric, Series, TrialResult
from tlbench.suites.braces import expand_braces
from tlbench.suites.loader import DEFAULT_REPEATS, builtin_suites, parse_suite
from tlbench.suites.model_spec import (
    FACTORISATIONS,
    BuilderSpec,
    ModelSpec,
    TokenLearnerSpec,
    VideoSpec,
)
from tlbench.suites.names import VARIANTS, parse_model
from tlbench.suites.schema import Spec
from tlbench.suites.spec import (
    MODES,
    Case,
    Parallelism,
    Suite,
    Timing,
    Trial,
)
from tlbench.suites.training import Augment, FewShot, Fit, Optimizer, View

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]

SETTINGS: dict[str, type[Spec]] = {
    "Suite": Suite,
    "Settings of a case": Case,
    "`parallelism`": Parallelism,
    "`optimizer`": Optimizer,
    "`timing`": Timing,
    "`fit`": Fit,
    "`augment`": Augment,
    "`view`": View,
    "`fewshot`": FewShot,
    "Keys of a model": ModelSpec,
    "`token_learner`": TokenLearnerSpec,
    "`video`": VideoSpec,
    "`builder`": BuilderSpec,
}
"""Which section of docs/suites.md documents which record."""
WRITTEN_AS_MODELS = {"model", "cases", "sources"}
"""Fields of the schema that the loader makes, from `models` and the settings."""

BASE_OF_FRAGMENTS = {"models": "ViT-B/16", "mode": "infer"}
"""What completes a fragment where it does not say it itself."""


class Block(NamedTuple):
    """A fenced block of code."""

    page: Path
    language: str
    mark: str
    """What follows the language: `fragment` or `refused`."""
    content: str

    @property
    def title(self) -> str:
        return f"{self.page.name}: {self.content[:30]!r}"


def _blocks(language: str, mark: str = "") -> list[Block]:
    return [
        block
        for page in PAGES
        for block in _blocks_of(page)
        if (block.language, block.mark) == (language, mark)
    ]


def _blocks_of(page: Path) -> Iterator[Block]:
    fences = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    for language, mark, content in fences:
        yield Block(page, language, mark, content)


def _section(page: str, heading: str) -> str:
    """What stands between a heading and the next of any level."""
    parts = re.split(r"^#+ (.*)$", (DOCS / page).read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def _rows(markdown: str) -> list[list[str]]:
    """The cells of each row of the tables, headings left out."""
    lines = re.findall(r"^\|.*\|$", markdown, re.M)
    rules = [number for number, line in enumerate(lines) if line.startswith("|-")]
    bodies = (
        line
        for number, line in enumerate(lines)
        if number not in rules and number + 1 not in rules
    )
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in bodies]


def _code(markdown: str) -> list[str]:
    """What stands in backticks, fenced blocks left out."""
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", prose)


def _commands() -> dict[str, Any]:
    """Every command that does something, by what one types for it."""
    found: dict[str, Any] = {}
    pending: list[tuple[str, Any]] = [("tlbench", typer.main.get_command(app))]
    while pending:
        name, command = pending.pop(0)
        children = getattr(command, "commands", {})
        pending += [(f"{name} {child}", children[child]) for child in children]
        if not children:
            found[name] = command
    return found


# ---------------------------------------------------------------- commands and links


def test_readme_has_exactly_the_two_set_up_commands_before_its_first_section() -> None:
    first_screen = (ROOT / "README.md").read_text().partition("\n## ")[0]
    commands = re.findall(r"^```sh\n(.*?)\n```$", first_screen, re.M | re.S)
    assert commands == [
        "pip install . && tlbench run smoke --report smoke.html",
        "pip install tox && tox",
    ]


def test_readme_lists_the_commands_of_the_command_line() -> None:
    table = _rows((ROOT / "README.md").read_text().partition("## Commands")[2])
    listed = [row[0].strip("`") for row in table]
    assert listed == list(_commands())


def test_shell_examples_use_commands_and_options_that_there_are() -> None:
    commands, examples = _commands(), []
    for block in _blocks("sh"):
        examples += re.findall(r"tlbench [^#&|`\n]*", block.content)
    assert examples
    for example in examples:
        name = max((c for c in commands if f"{example} ".startswith(f"{c} ")), key=len)
        known = {option for p in commands[name].params for option in p.opts}
        assert set(re.findall(r"--[\w-]+", example)) <= known, example


def test_every_option_is_in_the_readme_or_the_docs() -> None:
    text = "".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
    missing = [
        f"{name} {option}"
        for name, command in _commands().items()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and not re.search(rf"{option}(?![\w-])", text)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [
        link
        for link in links
        if not link.startswith("https://") and not (page.parent / link).exists()
    ]
    assert not missing


def test_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [
        page for page in DOCS.glob("*.md") if f"(docs/{page.name})" not in readme
    ] == []


# ---------------------------------------------------------------- suites


def test_every_yaml_block_is_a_suite_or_marked() -> None:
    blocks = [block for page in PAGES for block in _blocks_of(page)]
    marks = {block.mark for block in blocks if block.language in {"yaml", "yml"}}
    assert marks == {"", "fragment", "refused"}


@pytest.mark.parametrize("block", _blocks("yaml"), ids=lambda block: block.title)
def test_examples_of_suites_load(block: Block) -> None:
    assert parse_suite(block.content, "suite.yaml").cases


@pytest.mark.parametrize(
    "block", _blocks("yaml", "fragment"), ids=lambda block: block.title
)
def test_fragments_load_beside_a_model_and_a_mode(block: Block) -> None:
    given = yaml.safe_load(block.content)
    added = {k: v for k, v in BASE_OF_FRAGMENTS.items() if k not in given}
    assert added, "a suite in its own right needs no mark"
    assert parse_suite(f"{block.content}\n{yaml.safe_dump(added)}", "suite.yaml").cases


def test_errors_are_shown_word_for_word() -> None:
    page = (DOCS / "suites.md").read_text()
    shown = re.findall(
        r"^```yaml refused\n(.*?)^```$.*?^```text\n(.*?)\n```$", page, re.M | re.S
    )
    assert len(shown) == len(_blocks("yaml", "refused"))
    for content, message in shown:
        with pytest.raises(SuiteError) as caught:
            parse_suite(content, "suite.yaml")
        assert str(caught.value) == message


@pytest.mark.parametrize("heading", SETTINGS)
def test_settings_are_documented_with_their_defaults(heading: str) -> None:
    documented = {
        row[0].strip("`"): row[1] for row in _rows(_section("suites.md", heading))
    }
    fields = SETTINGS[heading].model_fields
    assert documented.keys() - {"models"} == fields.keys() - WRITTEN_AS_MODELS
    for name, field in fields.items():
        if name not in WRITTEN_AS_MODELS and not field.is_required():
            default = field.get_default(call_default_factory=True)
            told = yaml.safe_load(documented[name].strip("`"))
            assert isinstance(default, Spec) or told == default, name


def test_built_in_suites_are_documented() -> None:
    rows = _rows(_section("suites.md", "Built-in suites"))
    assert sorted(row[0].strip("`") for row in rows) == list(builtin_suites())


def test_default_repeats_are_documented() -> None:
    table = {row[0]: row[1] for row in _rows(_section("suites.md", "Suite"))}
    once = [mode for mode, count in DEFAULT_REPEATS.items() if count == 1]
    assert {*DEFAULT_REPEATS.values()} == {1, 5}
    listed = " and ".join(
        [", ".join(f"`{mode}`" for mode in once[:-1]), f"`{once[-1]}`"]
    )
    assert table["`repeats`"] == f"5; 1 for {listed}"


# ---------------------------------------------------------------- models


def test_model_names_parse() -> None:
    named = {
        code
        for path in PAGES
        for code in _code(path.read_text())
        if re.match(r"(ViT|ViViT)-", code)
    }
    for name in named:
        assert [parse_model(single) for single in expand_braces(name)], name


def test_sizes_of_the_variants_are_those_of_the_code() -> None:
    rows = _rows(_section("models.md", "The ViT is timm's"))
    assert {row[0]: tuple(map(int, row[1:])) for row in rows} == VARIANTS


def test_costs_of_models_are_what_tlbench_counts() -> None:
    counted, published = _cost_tables()
    for name, params, gmacs in counted:
        spec = parse_model(name.strip("`"))
        assert f"{cost.params(spec, 1000):,}" == params
        assert float(gmacs) == pytest.approx(cost.macs(spec, 1000) / 1e9, rel=1e-3)
    for name, gflops, gmacs in published:
        spec = parse_model(name.strip("`"))
        assert float(gmacs) == pytest.approx(cost.macs(spec, 1000) / 1e9, rel=1e-3)
        assert 1.003 < float(gflops) / float(gmacs) < 1.01


def test_costs_of_the_video_models_are_what_tlbench_counts() -> None:
    rows = _rows(_section("models.md", "Video"))
    assert len(rows) == len(FACTORISATIONS)
    for name, _, params, gmacs in rows:
        spec = parse_model(name.strip("`"))
        assert f"{cost.params(spec, 400):,}" == params
        assert float(gmacs) == pytest.approx(cost.macs(spec, 400) / 1e9, rel=1e-3)


def _cost_tables() -> tuple[list[list[str]], list[list[str]]]:
    rows = _rows(_section("models.md", "Cost conventions"))
    return [r for r in rows if "," in r[1]], [r for r in rows if "," not in r[1]]


# ---------------------------------------------------------------- measurement


def test_modes_and_statuses_are_documented() -> None:
    for heading, known in (("Modes", MODES), ("Statuses", STATUSES)):
        rows = _rows(_section("measurement.md", heading))
        assert [row[0].strip("`") for row in rows] == list(known)


def _is_documented(metric: str, documented: set[str]) -> bool:
    """Under its own name, or with `<stage>` or `<shots>` in the place of its own."""
    general = re.sub(rf"^stage_({'|'.join(STAGES)})_", "stage_<stage>_", metric)
    general = re.sub(r"^fewshot_\d+_", "fewshot_<shots>_", general)
    return general in documented


def _documented_metrics() -> set[str]:
    """What stands first in the rows of all tables that begin with the word metric."""
    page = (DOCS / "measurement.md").read_text()
    tables = re.findall(r"^\| metric \|.*\n((?:\|.*\n)+)", page, re.M)
    return {
        name
        for table in tables
        for row in _rows(f"||\n{table}")
        for name in _code(row[0])
    }


def test_metrics_are_documented_and_exist() -> None:
    documented = _documented_metrics()
    files = (f for d in ("harness", "suites") for f in (ROOT / d).rglob("*.py"))
    source = "".join(file.read_text() for file in files)
    shown = {*QUANTITIES, *DIRECTIONS, *PREDICTED_MEMORY, *PREDICTED_MEMORY.values()}
    assert [n for n in shown if not _is_documented(n, documented)] == []
    unknown = documented - QUANTITIES.keys()
    # A name with a <part> is made of an f-string.
    patterns = {name: re.sub(r"<\w+>", r"{\\w+}", name) for name in unknown}
    assert [n for n, p in patterns.items() if not re.search(rf"\b{p}\b", source)] == []


def test_stages_are_documented() -> None:
    (row,) = (
        r for r in _rows(_section("measurement.md", "Metrics")) if "<stage>" in r[0]
    )
    assert set(STAGES) <= set(_code(row[2]))


# ---------------------------------------------------------------- results


def test_tables_are_documented_with_all_columns() -> None:
    for table in Base.metadata.sorted_tables:
        documented = _code(_section("results.md", f"`{table.name}`"))
        missing = [c.name for c in table.columns if c.name not in documented]
        assert not missing, table.name


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `tlbench.db` in the current folder, with a run of one trial."""
    case = Case(model=parse_model("ViT-Ti/16"), mode="infer")
    suite = Suite(name="docs", cases=(case,), repeats={"infer": 1})
    result = TrialResult(
        "ok",
        metrics=(
            Metric("throughput_samples_per_s", 12.5),
            Metric("params", 5.7e6),
            Metric("latency_p99_s", None, "3 steps are too few"),
        ),
        series=(Series("step_time_s", (0.5, 0.25, 0.125)),),
    )
    monkeypatch.chdir(tmp_path)
    with ResultStore.open("tlbench.db", create=True) as store:
        run_id = store.begin_run(suite=suite, source="docs", command="", planned=1)
        store.add_trial(
            run_id,
            Trial(case, repeat=0, position=0, seed=0),
            result,
            started_at=datetime.now(UTC),
            wall_time_s=1.0,
            command="",
        )


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("block", _blocks("sql"), ids=lambda block: block.title)
def test_sql_examples_find_something(block: Block) -> None:
    with (
        ResultStore.open("tlbench.db", read_only=True) as store,
        store.session() as session,
    ):
        rows = session.execute(text(block.content)).all()
    assert len(rows) == 1
    assert rows[0][-1] in (12.5, "3 steps are too few")


@pytest.mark.usefixtures("database")
def test_python_examples_print_what_is_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for block in _blocks("python"):
        exec(compile(block.content, block.page.name, "exec"), {})
    printed = capsys.readouterr().out
    for told in ("ViT-Ti/16 infer 12.5", "{1: 3}", "infer ViT-Ti/16 [12.5]"):
        assert told in printed


def test_gallery_says_what_its_databases_hold() -> None:
    page = (ROOT / "docs/gallery/README.md").read_text()
    for table in gallery_table.tables():
        assert table in page


def test_the_readme_says_what_the_gallery_found() -> None:
    page = " ".join((ROOT / "README.md").read_text().split())
    _, accuracy = gallery_table.tables()
    lines = [line for line in accuracy.splitlines() if "| fashion-mnist |" in line]
    cells = [line.strip("| ").split(" | ") for line in lines]
    reached = [f"{row[3]} %" for row in cells]
    seconds = [row[-1] for row in cells]
    assert f"reach {', '.join(reached[:-1])} and {reached[-1]} top-1" in page
    assert f"in {', '.join(seconds[:-1])} and {seconds[-1]} seconds of training" in page
