"""The chart's values: all of skysift's config and nothing unknown, and what cannot run is refused by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml

from pipeline import config as configuration
from pipeline.config import Config
from tests.helm.conftest import CHART, ROOT, Manifest, Manifests, Render

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
TINY = {"cpu": 1, "memory": "1Gi", "ephemeralStorage": "1Gi"}


def _tiny(**group: Any) -> Manifest:
    return {"profiles": {"tiny": {"workers": {"cpu": group}}}}


@pytest.mark.parametrize("name", ["dr1-pixel", "dr1-main-dark"])
def test_examples_are_those_of_the_docs(name: str, render: Render, tmp_path: Path) -> None:
    config = _config(render(example=name), tmp_path)
    docs = configuration.load(ROOT / "docs" / "examples" / f"{name}.toml")
    assert dataclasses.replace(config, stores=docs.stores) == docs
    assert config.stores.workspace == "/workspace"
    assert config.stores.postgres.startswith("postgresql://")


def test_every_config_key_reaches_skysift(render: Render, tmp_path: Path) -> None:
    """Values of every type, none of them a default, come back from the rendered TOML as they were given."""
    given = {
        section.name: {key: _another(getattr(getattr(Config(), section.name), key), key) for key in keys}
        for section in dataclasses.fields(Config)
        if (keys := _schema_of(section.name).get("properties"))
    }
    given["stores"]["postgres"] = "postgresql://db/sky"
    given["stores"]["milvus"] = "http://milvus"
    given["stores"]["objects"] = 's3://bucket/with "quotes", a \\ and <σ>'
    config = _config(render({"config": given, "run": "full"}), tmp_path)
    assert config.run == "full"
    for section, keys in given.items():
        found = dataclasses.asdict(getattr(config, section))
        for key, value in keys.items():
            assert found[key] == (tuple(value) if isinstance(value, list) else value), f"{section}.{key}"


def test_schema_follows_the_config() -> None:
    _assert_follows(Config, SCHEMA["properties"]["config"], apart={"run", "ray"})


def test_every_value_is_described_and_unknown_ones_refused() -> None:
    seen = 0
    for path, node in _objects(SCHEMA, "values"):
        seen += 1
        assert node.get("description"), f"{path} has no description"
        if "properties" in node:
            assert node["additionalProperties"] is False, f"{path} takes unknown keys"
    assert seen > 250


def test_every_value_is_in_values_yaml() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(values) == set(SCHEMA["properties"]) - {"global"}
    place = {"nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"}
    for name, value in values.items():
        properties = _resolved(SCHEMA["properties"][name]).get("properties")
        if properties and name != "config":
            assert set(value) - place == set(properties) - place, name


BAD: list[tuple[Manifest, str]] = [
    ({"wrokers": {}}, "wrokers is not allowed"),
    ({"config": {"gate": {"zmin": 1}}}, "zmin is not allowed"),
    ({"config": {"gate": {"z_min": "low"}}}, "Expected: number, given: string"),
    ({"job": {"submissionMode": "Nonsense"}}, "submissionMode is not allowed"),
    ({"job": {"preRunningDeadlineSeconds": 0}}, "preRunningDeadlineSeconds: Must be greater than or equal to 1"),
    ({"job": {"backoffLimit": -1}}, "backoffLimit: Must be greater than or equal to 0"),
    (_tiny(gpus=-1, resourceName="nvidia.com/gpu"), "gpus: Must be greater than or equal to 1"),
    (_tiny(gpus=1), "resourceName"),
    (_tiny(resources={"cpu": "500m"}), "Expected: integer, given: string"),
    (_tiny(resources={"cpuRequest": 3}), "cpuRequest 3 is more than cpu 2, which is the limit"),
    (_tiny(resources={"cpuRequest": "2500m"}), "cpuRequest 2500m is more than cpu 2"),
    (_tiny(min=3), "profiles.tiny.workers.cpu.min is more than its max: set min to 1 or less"),
    (_tiny(resources={"cpu": 1}), "profiles.tiny has one CPU in all"),
    ({"profiles": {"tiny": {"workers": {"cpu": None}}}}, "profiles.tiny.workers is empty"),
    ({"profiles": {"tiny": {"workers": {"head": {"min": 0, "max": 1, "resources": TINY}}}}}, "head"),
    ({"profiles": {"tiny": {"workers": {f"g{n}": {"min": 0, "max": 1, "resources": TINY} for n in range(7)}}}},
     "Must have at most 7 properties"),
    ({"profiles": {"tiny": {"activeDeadlineSeconds": 0}}}, "activeDeadlineSeconds: Must be greater than or equal to 1"),
    ({"profile": "huge"}, 'there is no profile "huge": profiles has standard, survey, tiny'),
    ({"jobs": {"run": {"profile": "huge"}}}, 'there is no profile "huge"'),
    ({"jobs": {"dance": {"enabled": True}}}, "dance is not allowed"),
    ({"jobs": {"score": {"enabled": True}}}, "jobs.run and jobs.score are both for run dr1-pixel"),
    ({"jobs": {"run": {"args": ["$(id)"]}}}, "Does not match pattern"),
    ({"ray": {"version": "2.51.1"}}, "ray.version: Does not match pattern"),
    ({"kueue": {"elastic": True}}, "kueue.elastic is true and kueue.queue is empty"),
    ({"image": {"digest": "latest"}}, "image.digest: Does not match pattern"),
    ({"image": {"pullPolicy": "Sometimes"}}, "image.pullPolicy"),
    ({"logLevel": "LOUD"}, "logLevel"),
    ({"env": {"PGPASSWORD": "x"}}, "PGPASSWORD"),
    ({"env": {"AWS_ACCESS_KEY_ID": "x"}}, "env gives AWS_ACCESS_KEY_ID, which secrets.objects gives already"),
    ({"secretEnv": [{"name": "PGPASSWORD", "value": "x"}]}, "value is not allowed"),
    ({"secretEnv": [{"name": "PGPASSWORD", "secretName": "s", "key": "k"}]}, "which secrets.postgres gives already"),
    ({"secrets": {"postgres": "My Secret"}}, "secrets.postgres: Does not match pattern"),
    ({"config": {"survey": {"root": ""}}}, "config.survey.root is empty"),
    ({"config": {"stores": {"postgres": ""}}}, "config.stores.postgres is empty"),
    ({"config": {"stores": {"postgres": "postgresql://me:pw@db/sky"}}}, "holds a password"),
    ({"config": {"stores": {"milvus": ""}}}, "config.stores.milvus is empty"),
    ({"config": {"stores": {"objects": "/data"}}}, "config.stores.objects is not a URL"),
    ({"postgres": {"create": True}}, "config.stores.postgres and postgres.create are both set"),
    ({"milvus": {"create": True}}, "config.stores.milvus and milvus.create are both set"),
    ({"milvus": {"mode": "tiny"}}, "milvus.mode"),
    ({"service": {"ingress": {"enabled": True}}}, "service.ingress.host is empty"),
    ({"service": {"enabled": True}}, "service.tokens is empty"),
    ({"service": {"autoscaling": {"min": 9}}}, "service.autoscaling.min is more than service.autoscaling.max"),
    ({"network": {"postgres": {"ports": [0]}}}, "Must be greater than or equal to 1"),
    ({"network": {"operator": [{"pods": {}}]}}, "pods is not allowed"),
    ({"launcher": {"subjects": [{"kind": "Robot", "name": "r"}]}}, "kind"),
    ({"extraObjects": [{"kind": "ConfigMap"}]}, "apiVersion is required"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "words"), BAD)
def test_bad_values_are_refused(values: Manifest, words: str, refused: Callable[[Manifest], str]) -> None:
    assert words in refused(values)


def _config(manifests: Manifests, folder: Path) -> Config:
    path = folder / "skysift.toml"
    path.write_text(manifests.config(), encoding="utf-8")
    return configuration.load(path)


def _schema_of(section: str) -> Manifest:
    return SCHEMA["properties"]["config"]["properties"].get(section, {})  # type: ignore[no-any-return]


def _another(value: Any, key: str) -> Any:
    """A value of the same type that is not the default."""
    if dataclasses.is_dataclass(value):
        return {each.name: _another(getattr(value, each.name), each.name) for each in dataclasses.fields(value)}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1_234_567
    if isinstance(value, float):
        return 0.01 if key == "max_failed" else value + 1e-7
    if isinstance(value, tuple):
        return [1, 4] if key == "zwarn" else ["main/dark/1", "b"]
    return f"{value}x"


def _assert_follows(cls: type, schema: Manifest, apart: set[str]) -> None:
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean"}
    hints = get_type_hints(cls)
    names = {each.name for each in dataclasses.fields(cls)} - apart
    assert set(schema["properties"]) == names, f"{cls.__name__}: values.schema.json differs"
    for name in names:
        hint, node = hints[name], schema["properties"][name]
        if dataclasses.is_dataclass(hint):
            _assert_follows(hint, node, {"workspace"} if name == "stores" else set())  # type: ignore[arg-type]
        elif get_origin(hint) is tuple:
            assert node["items"]["type"] == kinds[get_args(hint)[0]], name
        else:
            assert node["type"] == kinds[hint], name


def _resolved(node: Manifest) -> Manifest:
    found = node
    for part in node.get("$ref", "#").split("/")[1:]:
        found = (SCHEMA if found is node else found)[part]
    return found


def _objects(node: Manifest, path: str) -> Iterator[tuple[str, Manifest]]:
    """Every value that the schema describes."""
    node = _resolved(node)
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _objects(child, f"{path}.{name}")
    if isinstance(node.get("additionalProperties"), dict) and "$ref" in node["additionalProperties"]:
        yield from _objects(node["additionalProperties"], f"{path}.*")
    if "properties" in node.get("items", {}):
        yield from _objects(node["items"], f"{path}[]")
