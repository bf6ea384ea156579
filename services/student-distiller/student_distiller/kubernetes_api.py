"""The Kubernetes API as far as jobs of the cluster need it: one namespace, its objects as plain JSON.

Plain JSON, and not the client's models: a cluster of another minor version says more, or less, than the models of one
release know, and what this service reads of it has been there since Kubernetes 1.26. The client's own exceptions go no
further than this module.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

from tutelage.errors import Code, ServiceError, SettingsError, TutelageError

try:
    import aiohttp
    from kubernetes.aio.client import ApiClient, BatchV1Api, Configuration, CoreV1Api, V1Job
    from kubernetes.aio.client.exceptions import ApiException
    from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
    from kubernetes.aio.watch import Watch
except ModuleNotFoundError as error:
    raise TutelageError(
        Code.EXTRA_MISSING, "jobs of a cluster need an optional part: pip install 'student-distiller[kubernetes]'"
    ) from error

__all__ = ["Cluster", "Json", "open_cluster"]

Json: TypeAlias = Mapping[str, Any]

ANSWER_SECONDS = 10.0
"""One call; the API server answers within a second unless it is on its way down or up."""

_GONE = 404
_THERE_ALREADY = 409
_EXPIRED = 410
_BUSY = 429
_REFUSED = 400
_FAILED = 500
_FULL = "exceeded quota"  # comes as 403 like a lack of rights, and passes


class Cluster:
    """One namespace of a cluster. Every method may raise `ServiceError` and `SettingsError` as `_failure` says."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        """Use `api`, which its owner closes."""
        self._batch, self._core, self._namespace = BatchV1Api(api), CoreV1Api(api), namespace

    async def config_map(self, name: str) -> Json:
        """The ConfigMap of this name."""
        call = self._core.read_namespaced_config_map_without_preload_content(
            name, self._namespace, _request_timeout=ANSWER_SECONDS
        )
        return _check(*await self._said(call))

    async def create_job(self, manifest: Json, *, dry_run: bool = False) -> bool:
        """Make the Job of `manifest`; with `dry_run` the server only judges it. False: there is one of its name."""
        status, answer = await self._said(
            self._batch.create_namespaced_job_without_preload_content(
                self._namespace,
                V1Job.model_validate(dict(manifest)),
                dry_run="All" if dry_run else None,
                field_validation="Strict",
                _request_timeout=ANSWER_SECONDS,
            )
        )
        if status == _THERE_ALREADY:
            return False
        _check(status, answer)
        return True

    async def find_job(self, name: str) -> Json | None:
        """The Job of this name; None where there is none."""
        status, answer = await self._said(
            self._batch.read_namespaced_job_without_preload_content(
                name, self._namespace, _request_timeout=ANSWER_SECONDS
            )
        )
        return None if status == _GONE else _check(status, answer)

    async def jobs(self, labels: str) -> list[Json]:
        """All Jobs that bear `labels`, written as a selector."""
        call = self._batch.list_namespaced_job_without_preload_content(
            self._namespace, label_selector=labels, _request_timeout=ANSWER_SECONDS
        )
        return list(_check(*await self._said(call))["items"])

    async def pods(self, labels: str) -> tuple[list[Json], str]:
        """All Pods that bear `labels`, and the version of this answer: changes are watched from there on."""
        call = self._core.list_namespaced_pod_without_preload_content(
            self._namespace, label_selector=labels, _request_timeout=ANSWER_SECONDS
        )
        answer = _check(*await self._said(call))
        return list(answer["items"]), str(answer["metadata"]["resourceVersion"])

    async def pods_changed(self, labels: str, since: str, within: timedelta) -> None:
        """Return when a Pod that bears `labels` has changed since the version `since`, at the latest after `within`.

        Also returns where the server no longer knows that version: whoever waits looks again in any case.
        """
        watch = Watch(return_type="object")  # type: ignore[no-untyped-call]
        seconds = max(1, round(within.total_seconds()))
        try:
            async with asyncio.timeout(within.total_seconds() + ANSWER_SECONDS):
                events = watch.stream(  # type: ignore[no-untyped-call]
                    self._core.list_namespaced_pod,
                    self._namespace,
                    label_selector=labels,
                    resource_version=since,
                    timeout_seconds=seconds,
                )
                async for _ in events:
                    return
        except ApiException as error:
            if error.status != _EXPIRED:
                raise _failure(error.status or 0, str(error.reason)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from error
        finally:
            await watch.close()  # type: ignore[no-untyped-call]

    async def delete_job(self, name: str) -> None:
        """Let the Job of this name be deleted, its Pods first; it is well if there is none."""
        status, answer = await self._said(
            self._batch.delete_namespaced_job_without_preload_content(
                name, self._namespace, propagation_policy="Foreground", _request_timeout=ANSWER_SECONDS
            )
        )
        if status != _GONE:
            _check(status, answer)

    async def _said(self, call: Awaitable[Any]) -> tuple[int, Json]:
        """Status and body of an answer."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await call
                body = await response.read()
            return response.status, json.loads(body)
        except ApiException as error:
            raise _failure(error.status or 0, str(error.reason)) from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _unreachable(error) from error


@asynccontextmanager
async def open_cluster(namespace: str, kubeconfig: Path | None) -> AsyncIterator[Cluster]:
    """The namespace of the cluster that `kubeconfig` names, or of the one that this process runs in.

    Raises:
        SettingsError: There is no such file, or this process runs in no cluster.
    """
    known = Configuration()
    try:
        if kubeconfig is None:
            load_incluster_config(client_configuration=known)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(kubeconfig), client_configuration=known, persist_config=False
            )
    except (ConfigException, OSError) as error:
        raise SettingsError(
            f"the cluster of jobs is not known ({error}): run in a Pod with a service account, or name a kubeconfig"
        ) from error
    async with ApiClient(configuration=known) as api:
        yield Cluster(api, namespace)


def _check(status: int, answer: Json) -> Json:
    """The `answer` itself where the server did what it was asked."""
    if status >= _REFUSED:
        raise _failure(status, str(answer.get("message", "")))
    return answer


def _failure(status: int, said: str) -> TutelageError:
    """A server that is away or busy may be back: `service-unavailable`. What it refuses it will refuse again."""
    if status in (0, _BUSY) or status >= _FAILED or _FULL in said:
        return ServiceError(
            Code.SERVICE_UNAVAILABLE, f"the cluster takes no requests ({status} {said}): try again later"
        )
    return SettingsError(
        f"the cluster refused ({status} {said}): check namespace, rights and quotas of the distiller's service account"
    )


def _unreachable(error: Exception) -> ServiceError:
    return ServiceError(
        Code.SERVICE_UNAVAILABLE, f"the cluster's API does not answer ({type(error).__name__} {error}): try again later"
    )
