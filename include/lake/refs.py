"""Nessie's branches and tags, over its API v2."""

from __future__ import annotations

import httpx


class Refs:
    """References of the Nessie server at ``url``. Raises httpx.HTTPError when it refuses."""

    def __init__(self, url: str, timeout_s: float = 20) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v2", timeout=timeout_s)

    def hash(self, name: str) -> str:
        """The commit that ``name`` points to."""
        return self._get(name)["hash"]

    def _get(self, name: str) -> dict:
        return self._http.get(f"/trees/{name}").raise_for_status().json()["reference"]

    def ensure(self, name: str, source: str) -> str:
        """Make the branch ``name`` at the head of ``source`` unless it exists; return its commit."""
        answer = self._http.get(f"/trees/{name}")
        if answer.status_code == 404:
            answer = self._http.post(
                "/trees",
                params={"name": name, "type": "BRANCH"},
                json={"type": "BRANCH", "name": source, "hash": self.hash(source)},
            )
            if answer.status_code == 409:
                return self.hash(name)
        return answer.raise_for_status().json()["reference"]["hash"]

    def assign(self, name: str, commit: str) -> None:
        """Point the branch ``name`` to ``commit`` of ``main``; does nothing when it is there."""
        current = self._get(name)
        if current["hash"] == commit:
            return
        self._http.put(
            f"/trees/{name}@{current['hash']}", json={"type": "BRANCH", "name": "main", "hash": commit}
        ).raise_for_status()

    def drop(self, name: str) -> None:
        """Remove the branch ``name``; does nothing when it is gone."""
        answer = self._http.get(f"/trees/{name}")
        if answer.status_code == 404:
            return
        commit = answer.raise_for_status().json()["reference"]["hash"]
        self._http.delete(f"/trees/{name}@{commit}").raise_for_status()
