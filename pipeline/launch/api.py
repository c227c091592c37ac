"""The Kubernetes API, as far as launching needs it: what is done here is what the chart's Role allows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, RunError, SkysiftError, StoreError, one_line

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
SUBMITTER = "ray-job-submitter"  # the container that follows the driver's log
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

RayJob = dict[str, Any]
Pod = dict[str, Any]


class AlreadyThere(RunError):
    """A RayJob of that name exists."""


class NotThere(RunError):
    """A RayJob of that name does not exist."""


class Api:
    """One namespace of one cluster.

    Attributes:
        namespace: where RayJobs are made and looked for.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        from kubernetes import client as kubernetes

        self.namespace = namespace
        self._core = kubernetes.CoreV1Api(client)
        self._custom = kubernetes.CustomObjectsApi(client)

    @staticmethod
    def connect(context: str = "", namespace: str = "") -> Api:
        """Use a kubeconfig (``KUBECONFIG``, else ~/.kube/config), or the pod's own account inside a cluster.

        Raises:
            ConfigError: there is neither, or no such context.
        """
        try:
            from kubernetes import client, config
        except ImportError:
            raise ConfigError("the kubernetes client is not installed: `pip install 'skysift[cluster]'`") from None
        try:
            if context or _kubeconfig_exists():
                config.load_kube_config(context=context or None)
            else:
                config.load_incluster_config()
        except (config.ConfigException, OSError) as error:
            raise ConfigError(
                f"no Kubernetes cluster is configured ({one_line(error)}): set KUBECONFIG, or give --context"
            ) from None
        settings = client.Configuration.get_default_copy()
        settings.retries = 2
        return Api(client.ApiClient(settings), namespace or _default_namespace(context))

    def templates(self, name: str) -> dict[str, str]:
        """The data of the admins' ConfigMap: a RayJob a profile, as YAML, and the default profile's name.

        Raises:
            ConfigError: it is not there.
        """
        cure = "name another release with --release, or install the chart there"
        with self._errors(f"ConfigMap {name}", missing=cure):
            found = self._core.read_namespaced_config_map(name, self.namespace)
        return dict(found.data or {})

    def create(self, job: RayJob, *, dry_run: bool) -> None:
        """Create a RayJob, unknown fields refused; with ``dry_run`` all is checked and nothing made.

        Raises:
            AlreadyThere: the name is taken.
            ConfigError: the API server refuses it.
        """
        extra = {"dry_run": "All"} if dry_run else {}
        with self._errors(f"RayJob {job['metadata']['name']}"):
            self._custom.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, job, field_validation="Strict", **extra
            )

    def get(self, name: str) -> RayJob:
        """Return a RayJob.

        Raises:
            NotThere: there is none of that name.
        """
        with self._errors(f"RayJob {name}"):
            return dict(self._custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name))

    def all(self, selector: str) -> list[RayJob]:
        """Return the RayJobs whose labels match."""
        with self._errors("RayJobs"):
            found = self._custom.list_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, label_selector=selector
            )
        return list(found["items"])

    def delete(self, job: RayJob) -> None:
        """Delete this very RayJob, not one that has taken its name since.

        Raises:
            NotThere: it is gone already.
        """
        from kubernetes.client import V1DeleteOptions, V1Preconditions

        options = V1DeleteOptions(
            preconditions=V1Preconditions(uid=job["metadata"]["uid"]), propagation_policy="Foreground"
        )
        name = job["metadata"]["name"]
        with self._errors(f"RayJob {name}"):
            self._custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name, body=options)

    def submitters(self, name: str) -> list[Pod]:
        """Return the pods that submitted a RayJob, the oldest first."""
        with self._errors("pods"):
            found = self._core.list_namespaced_pod(self.namespace, label_selector=f"job-name={name}")
        return sorted(found.to_dict()["items"], key=lambda pod: str(pod["metadata"]["creation_timestamp"]))

    def lines(self, pod: str, *, follow: bool) -> Iterator[str]:
        """Yield a submitter's log, each line behind its time stamp; with ``follow`` until its container ends."""
        with self._errors(f"log of pod {pod}"):
            response = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=SUBMITTER, follow=follow, timestamps=True, _preload_content=False
            )
            rest = b""
            for part in response.stream(decode_content=True):
                *lines, rest = (rest + part).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
            if rest:
                yield rest.decode("utf-8", "replace")

    @contextmanager
    def _errors(self, what: str, missing: str = "") -> Iterator[None]:
        """Turn what the API says into one clear line."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise self._said(what, error, missing) from None
        except HTTPError as error:
            reason = " ".join(str(getattr(error, "reason", error)).split())
            raise StoreError(
                f"the Kubernetes API does not answer ({reason}): check KUBECONFIG and the network"
            ) from None

    def _said(self, what: str, error: Any, missing: str) -> SkysiftError:
        where = f"{what} in namespace {self.namespace}"
        message = _message(error)
        if error.status == 404:
            return ConfigError(f"{where} does not exist: {missing}") if missing else NotThere(f"{where} does not exist")
        if error.status == 409:
            return AlreadyThere(f"{where}: {message}")
        if error.status == 401:
            return ConfigError("the Kubernetes API does not know you: renew the credentials in KUBECONFIG")
        if error.status == 403:
            cure = "an admin can add you to launcher.subjects of the chart"
            return ConfigError(f"{where} is refused: {message}; {f'{missing}; or {cure}' if missing else cure}")
        if error.status in (400, 422):
            return ConfigError(f"{where} is refused: {message}")
        return StoreError(f"{where}: the Kubernetes API answers {error.status}: {message}")


def _message(error: Any) -> str:
    try:
        text = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        text = error.reason or ""
    return " ".join(str(text).split())


def _kubeconfig_exists() -> bool:
    from kubernetes.config import kube_config

    places = str(kube_config.KUBE_CONFIG_DEFAULT_LOCATION).split(os.pathsep)
    return any(Path(place).expanduser().is_file() for place in places)


def _default_namespace(context: str) -> str:
    from kubernetes import config

    if not context and not _kubeconfig_exists():
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip() if _NAMESPACE_FILE.exists() else "default"
    try:
        contexts, active = config.list_kube_config_contexts()
    except config.ConfigException as error:
        raise ConfigError(f"the kubeconfig cannot be read: {one_line(error)}") from None
    chosen = next((each for each in contexts if each["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")
