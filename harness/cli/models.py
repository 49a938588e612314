"""`suites` and `models`: what can be asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.options import JsonOption
from tlbench.cli.output import print_json

if TYPE_CHECKING:
    from tlbench.suites.model_spec import ModelSpec


def suites(as_json: JsonOption = False) -> None:
    """The built-in suites, and the scales that `--scale` chooses from.

    Example: `tlbench suites`
    """
    from tlbench.console import make_console, make_table
    from tlbench.suites.loader import builtin_suites

    found = builtin_suites()
    if as_json:
        print_json([{"name": name, **item._asdict()} for name, item in found.items()])
        return
    rows = [
        (name, ", ".join(item.scales), item.description) for name, item in found.items()
    ]
    make_console().print(make_table(("suite", "scales", "what it does"), rows))


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Model names; braces expand, quotes are wise."
        ),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Width of the classifier; 1,000 for images and 400 for clips if left"
            " out.",
        ),
    ] = None,
    is_certified: Annotated[
        bool,
        typer.Option(
            "--certify",
            help="Check them against closed forms, counters, formulas and published"
            " numbers; without NAME all that are published.",
        ),
    ] = False,
    is_thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="With --certify: also execute models above 60 GMACs under DeepSpeed's"
            " profiler, as far as memory allows: minutes.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Cost of models by name: parameters, MACs, tokens; or certificates of them.

    Exit code 1: a check of a certificate fails.

    Example: `tlbench models 'ViT-B/16+TL{8,16}@{0,1/4,1/2,3/4}'` or
    `tlbench models --certify 'ViT-B/16+TL8@1/2'`
    """
    if is_certified:
        if num_classes is not None and not names:
            raise typer.BadParameter(
                "needs NAME; the published models have the classes of their data sets",
                param_hint="--num-classes",
            )
        _certify(names, num_classes, is_thorough=is_thorough, as_json=as_json)
        return
    if is_thorough:
        raise typer.BadParameter("goes with --certify only", param_hint="--thorough")
    if not names:
        raise typer.BadParameter(
            "missing; only --certify does without", param_hint="NAME"
        )
    from tlbench.console import make_console, make_table
    from tlbench.plan import describe_model
    from tlbench.suites.published import default_num_classes
    from tlbench.units import UNKNOWN, format_metric

    specs, texts = read_models(names)
    described = [
        describe_model(spec, num_classes or default_num_classes(spec), texts)
        for spec in specs
    ]
    if as_json:
        print_json(described)
        return
    rows = [
        (
            item["name"],
            f"{item['params']:,}",
            format_metric("macs", item["macs"]),
            format_metric("flops", item["flops"]),
            f"{item['tokens'][0]} to {item['tokens'][-1]}"
            if item["tokens"]
            else UNKNOWN,
        )
        for item in described
    ]
    headings = ("model", "parameters", "GMACs", "GFLOPs", "tokens")
    console = make_console()
    console.print(make_table(headings, rows))
    for item in described:
        if item.get("reason"):
            console.print(f"{item['name']!r} {item['reason']}", markup=False)


def _certify(
    names: list[str] | None,
    num_classes: int | None,
    *,
    is_thorough: bool,
    as_json: bool,
) -> None:
    """Certify the models, or all that are published, and show what was found."""
    from dataclasses import asdict

    from rich.progress import track

    from tlbench.certify import certify, named_models
    from tlbench.console import certificate_parts, make_console
    from tlbench.suites.published import default_num_classes

    specs, texts = read_models(names or [])
    screen = make_console(stderr=True)
    certificates = [
        certify(spec, classes, is_thorough=is_thorough, sources=texts)
        for spec, classes in track(
            [(spec, num_classes or default_num_classes(spec)) for spec in specs]
            or named_models(),
            "certifying",
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
    ]
    if as_json:
        print_json([asdict(certificate) for certificate in certificates])
    else:
        for part in certificate_parts(certificates):
            make_console().print(part)
    if any(certificate.failed for certificate in certificates):
        raise typer.Exit(1)


def read_models(names: list[str]) -> "tuple[list[ModelSpec], dict[str, str]]":
    """The models, and the texts of the users' files that their builders stand in."""
    from tlbench.suites.braces import expand_braces
    from tlbench.suites.names import parse_model
    from tlbench.suites.sources import Sources

    sources = Sources(Path())
    specs = [
        sources.resolve(parse_model(name))
        for text in names
        for name in expand_braces(text)
    ]
    return specs, sources.texts
