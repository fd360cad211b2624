"""The schema registry, as ingest speaks to it (Confluent's API)."""

from __future__ import annotations

import json
from typing import Any

import httpx

from include.cdc.topics import COMPATIBILITY
from include.ingest.deadletters import IngestError
from include.platform.endpoints import Endpoints


class Registry:
    """The registry of ``endpoints``. Raises :class:`IngestError` when it refuses."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.url = f"{endpoints['shudl_registry'].url}/apis/ccompat/v7"
        self._http = httpx.Client(base_url=self.url, timeout=20)

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """The id of ``schema`` as a version of ``subject``, which it becomes unless it is one."""
        if self._ask("GET", f"/config/{subject}", missing={}).get("compatibilityLevel") != COMPATIBILITY:
            self._ask("PUT", f"/config/{subject}", json={"compatibility": COMPATIBILITY})
        return self._ask("POST", f"/subjects/{subject}/versions", json={"schema": json.dumps(schema)})["id"]

    def versions(self, subject: str) -> dict[int, dict[str, Any]]:
        """The subject's schemas by id, the oldest first; none where there is no such subject."""
        found = {}
        for number in self._ask("GET", f"/subjects/{subject}/versions", missing=[]):
            version = self._ask("GET", f"/subjects/{subject}/versions/{number}")
            found[version["id"]] = json.loads(version["schema"])
        return found

    def _ask(self, method: str, path: str, missing: Any = None, json: Any = None) -> Any:
        try:
            answer = self._http.request(method, path, json=json)
            if answer.status_code == 404 and missing is not None:
                return missing
            return answer.raise_for_status().json()
        except httpx.HTTPStatusError as error:
            raise IngestError(f"the schema registry refuses {method} {path}: {error.response.text[:500]}") from None
        except httpx.HTTPError as error:
            raise IngestError(f"the schema registry does not answer at {self.url}: {error or type(error).__name__}") from None
