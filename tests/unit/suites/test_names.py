"""Names of models: what they mean, how they print, how they fail."""

import itertools
import subprocess

import pytest

from tlbench.errors import SuiteError
from tlbench.suites.braces import MAX_LENGTH, expand_braces
from tlbench.suites.model_spec import (
    BuilderSpec,
    GridPoolSpec,
    ModelSpec,
    TokenLearnerSpec,
    VideoSpec,
)
from tlbench.suites.names import (
    VARIANTS,
    model_name,
    parse_grid_pool,
    parse_model,
    parse_token_learner,
)


def spelled_out(**changes: object) -> ModelSpec:
    """ViT-B/16 field by field, with changes."""
    sizes = {
        "patch_size": 16,
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
        "mlp_dim": 3072,
    }
    return ModelSpec.model_validate({**sizes, **changes})


def learner(tokens: int, place: int, **changes: object) -> TokenLearnerSpec:
    fields = {"num_tokens": tokens, "place": place, **changes}
    return TokenLearnerSpec.model_validate(fields)


def clips(**changes: object) -> ModelSpec:
    """ViViT-B/16x2 field by field, with changes of `video`."""
    return spelled_out(video=VideoSpec.model_validate(changes))


# Sizes of the large model, for the names below.
L = {"embed_dim": 1024, "num_heads": 16, "mlp_dim": 4096}


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("ViT-B/16", spelled_out()),
        ("ViT-B/16@384", spelled_out(image_size=384)),
        ("ViT-B/16+TL8@1/4", spelled_out(token_learner=learner(8, 3))),
        (
            "ViT-L/10[35]@512+TL16@18",
            spelled_out(
                **L,
                patch_size=10,
                depth=35,
                image_size=512,
                token_learner=learner(16, 18),
            ),
        ),
        ("ViT-B/16[21]+TL8@10", spelled_out(depth=21, token_learner=learner(8, 10))),
        (
            "ViT-B/16+TL8v1@6",
            spelled_out(token_learner=learner(8, 6, version="v1")),
        ),
        (
            "ViT-B/16+TL8v1mean@6",
            spelled_out(token_learner=learner(8, 6, version="v1", pooling="mean")),
        ),
        (
            "ViT-B/16+TL8fuse@6",
            spelled_out(token_learner=learner(8, 6, fuse=True)),
        ),
        ("ViT-B/16+TL8@12", spelled_out(token_learner=learner(8, 12))),
        ("ViT-B/16+TL8@1/1", spelled_out(token_learner=learner(8, 12))),
        (
            "ViT-d96h3m384l8/2@16",
            spelled_out(
                patch_size=2,
                image_size=16,
                embed_dim=96,
                depth=8,
                num_heads=3,
                mlp_dim=384,
            ),
        ),
        ("ViT-B/16:token", spelled_out(global_pool="token")),
        (
            "ViT-B/16:map+TL8@6",
            spelled_out(global_pool="map", token_learner=learner(8, 6)),
        ),
        (
            "ViT-B/16+pool3@1/2,9",
            spelled_out(grid_pool=GridPoolSpec(window=3, places=(6, 9))),
        ),
        ("ViViT-B/16x2", clips()),
        ("ViViT-B/16x4@224x16", clips(num_frames=16, tubelet_size=4)),
        ("ViViT-B/16x2:encoder", clips(factorisation="encoder", temporal_depth=4)),
        ("ViViT-B/16x2:encoder8", clips(factorisation="encoder", temporal_depth=8)),
        ("ViViT-B/16x2:attention", clips(factorisation="attention")),
        ("ViViT-B/16x2:dotproduct", clips(factorisation="dotproduct")),
        (
            "ViViT-L/16x2:encoder",
            spelled_out(
                **L,
                depth=24,
                video=VideoSpec(factorisation="encoder", temporal_depth=24),
            ),
        ),
        (
            "ViT-B/16+tome(r=8,trace=true,how=fast,share=0.5)",
            spelled_out(
                builder=BuilderSpec(
                    function="tome",
                    options={"r": 8, "trace": True, "how": "fast", "share": 0.5},
                )
            ),
        ),
        (
            "ViT-B/16+my_models.py:build",
            spelled_out(builder=BuilderSpec(function="build", file="my_models.py")),
        ),
        (
            "my_models.py:build(k=2)",
            spelled_out(
                builder=BuilderSpec(
                    function="build", file="my_models.py", options={"k": 2}
                )
            ),
        ),
    ],
)
def test_name_means_these_sizes(name: str, spec: ModelSpec) -> None:
    assert parse_model(name) == spec


# width, depth, MLP and heads of each variant, typed a second time.
@pytest.mark.parametrize(
    ("letter", "sizes"),
    [
        ("Ti", (192, 12, 768, 3)),
        ("S", (384, 12, 1536, 6)),
        ("B", (768, 12, 3072, 12)),
        ("L", (1024, 24, 4096, 16)),
        ("H", (1280, 32, 5120, 16)),
        ("g", (1408, 40, 6144, 16)),
        ("G", (1664, 48, 8192, 16)),
    ],
)
def test_variants_have_their_published_sizes(
    letter: str, sizes: tuple[int, int, int, int]
) -> None:
    spec = parse_model(f"ViT-{letter}/14")
    assert (spec.embed_dim, spec.depth, spec.mlp_dim, spec.num_heads) == sizes


@pytest.mark.parametrize(
    ("read", "printed"),
    [
        ("ViT-B/16+TL8@1/4", "ViT-B/16+TL8@3"),
        ("ViT-L/10[24+11]@512+TL16@18", "ViT-L/10[35]@512+TL16@18"),
        ("ViT-L/10+TL16@18@512[35]", "ViT-L/10[35]@512+TL16@18"),
        ("ViT-B/16@384[10+11]", "ViT-B/16[21]@384"),
        ("ViT-B/16[12]@224", "ViT-B/16"),
        ("ViT-B/16+TL8v1.1@6", "ViT-B/16+TL8@6"),
        ("ViT-B/16+TL8fusemeanv1@6", "ViT-B/16+TL8v1meanfuse@6"),
        ("ViT-S/32[22]+TL8@1/2", "ViT-S/32[22]+TL8@11"),
        ("ViT-d768h12m3072l12/16", "ViT-B/16"),
        ("ViT-d96h3m384l8/2@16+TL8@1/4", "ViT-d96h3m384l8/2@16+TL8@2"),
        ("ViT-B/16+TL8@1/2:map@384", "ViT-B/16@384:map+TL8@6"),
        ("ViT-L/16@512+pool4@3/8,18", "ViT-L/16@512+pool4@9,18"),
        ("ViViT-B/16x2@224x32", "ViViT-B/16x2"),
        ("ViViT-B/16x2@288x32", "ViViT-B/16x2@288"),
        ("ViViT-B/16x2@224x16", "ViViT-B/16x2@224x16"),
        ("ViViT-B/16x2:encoder4", "ViViT-B/16x2:encoder"),
        ("ViViT-L/16x2:encoder4", "ViViT-L/16x2:encoder4"),
        ("ViViT-B/16x2:token:encoder[24]", "ViViT-B/16x2[24]:encoder:token"),
        ("ViT-B/16+tome(r=8, b=1)+TL8@6", "ViT-B/16+TL8@6+tome(b=1,r=8)"),
        ("ViT-B/16+tome(r=8)@384", "ViT-B/16@384+tome(r=8)"),
        ("ViT-B/16+tome:map@384[21]", "ViT-B/16[21]@384:map+tome"),
        ("ViT-B/16+my.py:build@384", "ViT-B/16@384+my.py:build"),
        ("ViT-B/16+my.py:build:token[21]", "ViT-B/16[21]:token+my.py:build"),
        ("my.py:build(k=2)@384+TL8@1/2", "ViT-B/16@384+TL8@6+my.py:build(k=2)"),
        ("ViT-B/16+pool2@6@384:map", "ViT-B/16@384:map+pool2@6"),
        ("ViT-B/16+poolside@384", "ViT-B/16@384+poolside"),
        ("my_models.py:build", "ViT-B/16+my_models.py:build"),
        (
            "ViT-B/16+tome(a=nan,b=inf,c=1e999,d=-2,e=1e-3,f=1/2)",
            "ViT-B/16+tome(a=nan,b=inf,c=1e999,d=-2,e=0.001,f=1/2)",
        ),
    ],
)
def test_name_prints_in_one_order_without_defaults(read: str, printed: str) -> None:
    assert model_name(parse_model(read)) == printed


def test_every_printed_name_reads_back_as_the_same_model() -> None:
    learners = [
        None,
        learner(8, 3),
        learner(16, 12, version="v1"),
        learner(8, 0, version="v1", pooling="mean", fuse=True),
    ]
    for sizes, patch, image, extra, placed in itertools.product(
        VARIANTS.values(), (8, 14, 32), (224, 512), (0, 11), learners
    ):
        spec = ModelSpec(
            patch_size=patch,
            image_size=image,
            embed_dim=sizes.embed_dim,
            depth=sizes.depth + extra,
            num_heads=sizes.num_heads,
            mlp_dim=sizes.mlp_dim,
            token_learner=placed,
        )
        assert parse_model(model_name(spec)) == spec


@pytest.mark.parametrize("family", ["ViT-{B,Ti}/16", "ViViT-{B,L}/14x4"])
@pytest.mark.parametrize("size", ["", "[16]", "@512"])
@pytest.mark.parametrize("reduction", ["", "+TL8v1@4", "+pool2@4,8", "+tome(r=8)"])
def test_names_of_all_kinds_print_as_they_are_read(
    family: str, size: str, reduction: str
) -> None:
    heads = [":map"]
    if family.startswith("ViViT"):
        heads += [":encoder", ":encoder2", ":attention", ":dotproduct"]
    for head in ["", *heads]:
        for name in expand_braces(f"{family}{size}{head}{reduction}"):
            assert model_name(parse_model(name)) == name


def test_model_keeps_the_name_that_its_user_gave() -> None:
    assert model_name(spelled_out(name="mine")) == "mine"
    placed = spelled_out(name="tiny", embed_dim=96, token_learner=learner(8, 3))
    assert model_name(placed) == "tiny+TL8@3"


def test_token_learner_is_read_alone_relative_to_the_depth() -> None:
    assert parse_token_learner("TL8@1/4", 8) == learner(8, 2)
    assert parse_token_learner("TL16v1@5", 8) == learner(16, 5, version="v1")


def test_pooling_is_read_alone_relative_to_the_depth() -> None:
    assert parse_grid_pool("pool2@1/4,4", 8) == GridPoolSpec(window=2, places=(2, 4))


QUOTES = (
    "a name with brackets, parentheses or commas wants quotes in YAML flow lists and in"
    " shells"
)
BEGINNING = (
    "a name begins with variant and patch size, as in ViT-B/16,"
    " or with those of a tubelet, as in ViViT-B/16x2"
)
VARIANT_LIST = "is not one of Ti, S, B, L, H, g, G"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ViT-b/16", f"'b' {VARIANT_LIST}; did you mean 'B'?"),
        ("ViT-Base/16", f"'Base' {VARIANT_LIST}; did you mean 'B'?"),
        ("ViT-Q/16", f"'Q' {VARIANT_LIST}"),
        ("ViT-B", BEGINNING),
        ("vit_base_patch16_224", BEGINNING),
        ("ViT-B/16[24", f"'[24' has no closing bracket; {QUOTES}"),
        (
            "ViT-B/16+random(keep=16",
            f"'(keep=16' has no closing parenthesis; {QUOTES}",
        ),
        (
            "ViT-B/16(r=8)",
            "'(r=8)' is not [depth], @size, :token, +TL<tokens>@place,"
            " +pool<window>@place or a builder such as +tome(r=8)",
        ),
        ("vit_base+my.py:build", BEGINNING),
        ("ViT-B/16[x]", "'[x]' is not a depth such as [21] or [24+11]"),
        ("ViT-B/16[0]", "depth: 0 is not greater than 0"),
        ("ViT-B/16@", "'@' is not an image size such as @384"),
        ("ViT-B/16@8", "patch_size=16 is larger than image_size=8"),
        ("ViT-B/16@99999", "image_size: 99999 is not at most 65536"),
        ("ViT-B/16@384@512", "'@384' and '@512' cannot both stand in it"),
        ("ViT-B/16:encoder", "':encoder' is for video, as in ViViT-B/16x2:encoder"),
        (
            "ViViT-B/16x2:encode",
            "':encode' is not one of :encoder, :attention, :dotproduct, :token, :map",
        ),
        (
            "ViT-B/16x2",
            "tubelets are for video: ViViT-B/16x2 would be right",
        ),
        ("ViViT-B/16", "a ViViT names its tubelet, as in ViViT-B/16x2"),
        (
            "ViT-B/16@384x16",
            "'@384x16' has two sizes, and the images of a ViT are square: @384 would be"
            " right (of a ViViT the second is its frames)",
        ),
        ("ViViT-B/16x33", "tubelet_size=33 is longer than num_frames=32"),
        (
            "ViViT-B/16x2:attention4",
            "temporal_depth=4 does not fit factorisation=attention: encoder has at"
            " least 1 block over time, the others have none",
        ),
        (
            "ViViT-d15h3m60l2/16x2:dotproduct",
            "num_heads=3 is odd; video.factorisation=dotproduct gives half of them to"
            " time",
        ),
        (
            "ViViT-B/16x2:attention:token",
            "global_pool=token does not go with video.factorisation=attention;"
            " avg would be right",
        ),
        (
            "ViViT-B/16x2:encoder:map",
            "global_pool=map does not go with video.factorisation=encoder;"
            " avg or token would be right",
        ),
        (
            "ViT-B/16:token+TL8@6",
            "global_pool=token does not go with token_learner or grid_pool: the public"
            " code has no class token there; avg or map would be right",
        ),
        (
            "ViT-B/16:token:map",
            "':token' and ':map' cannot both stand in it",
        ),
        (
            "ViT-B/16+pool2",
            "'pool2' is not pool<window>@places, as in pool4@9,18",
        ),
        ("ViT-B/16+pool2@9,6", "places=9,6 do not rise from each to the next"),
        (
            "ViT-B/16+pool2@12",
            "grid_pool.places=12 lies beyond the 12 blocks; 0 to 11 would be right",
        ),
        (
            "ViT-B/16+pool4@6,9",
            "grid_pool.window=4 is larger than what is left of the 14 x 14 grid at"
            " place 9",
        ),
        (
            "ViT-B/16+TL8@6+pool2@9",
            "grid_pool and token_learner cannot both stand in one model",
        ),
        (
            "ViT-B/16+tome(8)",
            "'8' is not a new option=value, as in tome(r=8)",
        ),
        ("ViT-B/16+TL8", "'TL8' lacks its place, as in TL8@1/4"),
        (
            "ViT-B/16+TL8@0.25",
            "'TL8@0.25' is not TL<tokens>[v1][mean][fuse]@place, as in TL8@1/4",
        ),
        (
            "ViT-B/16+TL8@1/5",
            "1/5 of 12 blocks is not a whole block; place 2 or 3 would be right",
        ),
        ("ViT-B/16+TL8@1/0", "place 1/0 divides by zero"),
        (
            "ViT-B/16+TL8@13",
            "token_learner.place=13 lies beyond the 12 blocks; 0 to 12 would be right",
        ),
        ("ViT-B/16+TL0@3", "num_tokens: 0 is not greater than 0"),
        ("ViT-B/16+TL8v1v1.1@3", "'v1v1.1' says one thing twice"),
        (
            "ViT-B/16+TL8mean@3",
            "pooling=mean needs version=v1; the weights of v1.1 already sum to 1",
        ),
        (
            "ViT-B/16+TL{8,16}@6",
            f"'TL{{8,16}}@6' is not TL<tokens>[v1][mean][fuse]@place; {QUOTES}",
        ),
    ],
)
def test_wrong_name_says_which_part_and_what_would_be_right(
    name: str, why: str
) -> None:
    with pytest.raises(SuiteError) as caught:
        parse_model(name)
    assert str(caught.value) == f"{name!r} cannot be built: {why}"


def test_words_of_options_are_numbers_only_where_these_are_finite() -> None:
    builder = parse_model("ViT-B/16+tome(a=nan,b=-inf,c=1e999,d=8,e=0.5)").builder
    assert builder is not None
    assert builder.options == {"a": "nan", "b": "-inf", "c": "1e999", "d": 8, "e": 0.5}


def test_endless_name_is_refused() -> None:
    with pytest.raises(SuiteError, match=f"more than {MAX_LENGTH} characters"):
        parse_model("ViT-B/16" + "9" * 5000)


BRACES = [
    "ViT-B/16+TL{8,16}@{0,1/4}",
    "ViT-B/16{,+TL8@6}",
    "{a,b{c,d}}e",
    "x{a,{b}}y",
    "{3..1}",
    "{0..12..3}",
    "{a}",
    "{}",
    "{{a,b}}",
    "plain",
]


def test_braces_expand_with_the_first_varying_slowest() -> None:
    assert expand_braces("ViT-{S,B}/16+TL{8,16}@{0,1/4}") == [
        "ViT-S/16+TL8@0",
        "ViT-S/16+TL8@1/4",
        "ViT-S/16+TL16@0",
        "ViT-S/16+TL16@1/4",
        "ViT-B/16+TL8@0",
        "ViT-B/16+TL8@1/4",
        "ViT-B/16+TL16@0",
        "ViT-B/16+TL16@1/4",
    ]


@pytest.mark.parametrize("text", BRACES)
def test_braces_expand_as_in_bash(text: str) -> None:
    try:
        shell = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {text}"],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("no bash on this machine")
    assert expand_braces(text) == shell.stdout.splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ViT-B/16+TL{8,16@6", "its braces do not match"),
        ("ViT-B/16}{", "its braces do not match"),
        ("{" * 11 + "a" + "}" * 11, "its braces are nested deeper than 10"),
        ("{a,b}" * 60, "expands to more than 10000 names"),
        ("{1..99999999999}", "expands to more than 10000 names"),
        ("{" * 501, "more than 500 characters"),
    ],
)
def test_impossible_braces_are_refused(text: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        expand_braces(text)
