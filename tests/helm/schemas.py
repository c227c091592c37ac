"""Kubernetes' own schemas, from the kubernetes-validate wheel, each read once; `validate` reads them at every call."""

from __future__ import annotations

import functools
import re
from typing import Any

import jsonschema
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

VERSIONS = ("1.35", "1.36", "1.37")


def validate(manifest: dict[str, Any]) -> None:
    """Check an object strictly against three versions of Kubernetes.

    Raises:
        jsonschema.ValidationError: a field is unknown, missing or of the wrong type.
    """
    api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", manifest["apiVersion"])
    for version in VERSIONS:
        _validator(version, f"{manifest['kind'].lower()}-{api}").validate(manifest)


@functools.cache
def _validator(version: str, name: str) -> Any:
    schema = schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{name}.json", version)
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


@functools.cache
def _definitions(version: str) -> Any:
    text = schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json", version)
    return Resource.from_contents(text) @ Registry()
