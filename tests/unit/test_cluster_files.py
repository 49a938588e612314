"""The files of docs/cluster/ against the schemas of those who read them."""

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tlbench.suites.loader import parse_suite

FOLDER = Path(__file__).parents[2] / "docs" / "cluster"


# ---------------------------------------------------------------- KubeRay


def closed(required: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def listed(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
TRUTH = {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
NAMED = closed("name", name=TEXT)
CONTAINER = closed(
    "name image resources",
    name=TEXT,
    image=TEXT,
    resources=closed("requests limits", requests=AMOUNTS, limits=AMOUNTS),
    ports=listed(closed("containerPort name", containerPort=COUNT, name=TEXT)),
    volumeMounts=listed(
        closed("name mountPath", name=TEXT, mountPath=TEXT, readOnly=TRUTH)
    ),
)
VOLUME = closed(
    "name",
    name=TEXT,
    configMap=NAMED,
    persistentVolumeClaim=closed("claimName", claimName=TEXT),
    emptyDir=closed("", medium=TEXT, sizeLimit=TEXT),
)
POD = closed(
    "spec",
    spec=closed("containers", containers=listed(CONTAINER), volumes=listed(VOLUME)),
)
KUBERAY = {
    "RayCluster": closed(
        "headGroupSpec",
        rayVersion=TEXT,
        authOptions=closed("", mode={"enum": ["disabled", "token"]}, secretName=TEXT),
        headGroupSpec=closed("template", rayStartParams=TEXTS, template=POD),
        workerGroupSpecs=listed(
            closed(
                "groupName maxReplicas minReplicas template",
                groupName=TEXT,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                rayStartParams=TEXTS,
                template=POD,
            )
        ),
    ),
    "RayJob": closed(
        "",
        clusterSelector=TEXTS,
        submissionMode=TEXT,
        backoffLimit=COUNT,
        entrypoint=TEXT,
    ),
}
"""What stands under `spec`: the fields of KubeRay that the manifest uses, and of them
what its schemas (ray.io/v1) demand."""


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """The objects of kuberay.yaml by their kind."""
    objects = list(yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text()))
    assert len({item["kind"] for item in objects}) == len(objects)
    return {item["kind"]: item for item in objects}


@pytest.mark.parametrize("kind", KUBERAY)
def test_kuberay_knows_every_field(manifest: dict[str, Any], kind: str) -> None:
    assert manifest[kind]["apiVersion"] == "ray.io/v1"
    jsonschema.validate(manifest[kind]["spec"], KUBERAY[kind])


def test_a_misspelt_field_of_kuberay_is_refused(manifest: dict[str, Any]) -> None:
    wrong = copy.deepcopy(manifest["RayCluster"]["spec"])
    wrong["headGroupSpec"]["template"]["spec"]["volume"] = []
    with pytest.raises(jsonschema.ValidationError, match="'volume' was unexpected"):
        jsonschema.validate(wrong, KUBERAY["RayCluster"])


def groups(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["RayCluster"]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_mounts_are_of_volumes_and_volumes_of_objects(
    manifest: dict[str, Any],
) -> None:
    named = {kind: item["metadata"]["name"] for kind, item in manifest.items()}
    for group in groups(manifest):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] == named["ConfigMap"]
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim == named["PersistentVolumeClaim"]


def test_requests_of_containers_are_their_limits(manifest: dict[str, Any]) -> None:
    """Or the node would have others beside a measurement, and Ray count differently."""
    for group in groups(manifest):
        for container in group["template"]["spec"]["containers"]:
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]


def test_the_job_runs_the_suite_of_the_map_into_the_claim(
    manifest: dict[str, Any],
) -> None:
    job, cluster = manifest["RayJob"]["spec"], manifest["RayCluster"]
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    (container,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    found = re.fullmatch(
        r"tlbench run (\S+) --address auto --db (\S+)", job["entrypoint"]
    )
    assert found is not None
    suite, db = map(Path, found.groups())
    assert str(suite.parent) == mounts["suite"]
    assert str(db.parent) == mounts["results"]
    text = manifest["ConfigMap"]["data"][suite.name]
    assert len(parse_suite(text, suite.name).cases) == 6


def test_the_token_comes_from_a_secret_that_no_file_holds(
    manifest: dict[str, Any],
) -> None:
    options = manifest["RayCluster"]["spec"]["authOptions"]
    assert options["mode"] == "token"
    assert "Secret" not in manifest
    created = f"kubectl create secret generic {options['secretName']} "
    assert (
        f"{created}--from-literal=auth_token=" in (FOLDER / "kuberay.yaml").read_text()
    )


# ---------------------------------------------------------------- ray up


def test_ray_prepares_the_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    given = yaml.safe_load((FOLDER / "ray-up.yaml").read_text())
    prepared = prepare_config(copy.deepcopy(given))
    validate_config(prepared)
    (kind,) = prepared["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == 2
    with pytest.raises(jsonschema.ValidationError, match="'file_mount' was unexpected"):
        validate_config(prepared | {"file_mount": {}})


# ---------------------------------------------------------------- Slurm


def test_the_slurm_script_is_a_script_of_bash() -> None:
    subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here")
def test_shellcheck_finds_nothing_in_the_slurm_script() -> None:
    ended = subprocess.run(
        ["shellcheck", FOLDER / "slurm.sh"], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout


# ---------------------------------------------------------------- all


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.name)
def test_a_file_says_what_was_checked_and_what_never_ran(file: Path) -> None:
    opening = file.read_text().partition("\n\n")[0]
    assert "# Checked: " in opening
    assert "# Never run: " in opening
