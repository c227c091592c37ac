"""A template filled in: the admins' RayJob with a user's verb, run and options, and nothing else of it changed."""

from __future__ import annotations

import copy
import json
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import config as configuration
from pipeline.errors import ConfigError

VERBS = ("run", "ingest", "train", "score")
CONFIG = "/etc/skysift/skysift.toml"
RUN, VERB, PROFILE = "skysift/run", "skysift/verb", "skysift/profile"  # labels

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST = 47  # KubeRay's limit of a RayJob's name
_PLAIN = re.compile(r'[A-Za-z0-9_./:@+,=\-\[\]"]+')


def templates_name(release: str) -> str:
    """Return the name of the ConfigMap in which a release of the chart keeps its templates.

    It follows ``skysift.name`` of helm/skysift/templates/_helpers.tpl.
    """
    name = release.replace(".", "-")
    if "skysift" not in name:
        name = f"{name}-skysift"
    return f"{name[:28].removesuffix('-')}-templates"


def filled(
    template: Mapping[str, Any], verb: str, run: str, overrides: Sequence[str] = (), model: str = ""
) -> dict[str, Any]:
    """Return the RayJob of a run; its name is the run's.

    Args:
        template: a RayJob as the chart keeps it.
        verb: run, ingest, train or score.
        run: the run's name.
        overrides: ``section.key=value``, as ``--set`` takes them.
        model: a model's id or ``promoted``.

    Raises:
        ConfigError: the name is none for a RayJob, or an override is unknown or cannot be passed on.
    """
    if not _NAME.fullmatch(run) or len(run) > _LONGEST:
        raise ConfigError(
            f"run {run!r} cannot name a RayJob: at most {_LONGEST} lower-case letters, digits, dashes, a letter first"
        )
    configuration.load(None, overrides)  # a typing error is found here, not minutes later in a pod
    words = ["skysift", verb, "--config", CONFIG, "--run", run]
    words += [word for override in overrides for word in ("--set", _passed(override))]
    words += ["--model", _plain(model, "--model")] if model else []
    job = copy.deepcopy(dict(template))
    job["metadata"]["name"] = run
    job["metadata"].setdefault("labels", {}).update({RUN: run, VERB: verb})
    job["spec"]["entrypoint"] = shlex.join(words)
    return job


def _passed(override: str) -> str:
    """An override that two shells leave as it is: KubeRay's submitter and Ray's job supervisor have one each."""
    key, _, text = override.partition("=")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return _plain(f"{key.strip()}={text}", "--set")  # a bare word is a string
    return _plain(f"{key.strip()}={json.dumps(value, separators=(',', ':'))}", "--set")


def _plain(word: str, option: str) -> str:
    if not _PLAIN.fullmatch(word):
        odd = "".join(sorted(set(_PLAIN.sub("", word))))
        raise ConfigError(
            f"{option} {word}: {odd!r} does not survive a RayJob's command; put it under config in the chart's values"
        )
    return word
