"""Airbyte's declarative connector, which runs the manifest that it is given: one stream of an HTTP API."""

from __future__ import annotations

from typing import Any


def manifest(
    name: str,
    requester: dict[str, Any],
    field_path: list[str],
    properties: dict[str, Any],
    config: dict[str, Any] | None = None,
    paginator: dict[str, Any] | None = None,
    **of_stream: Any,
) -> dict[str, Any]:
    """The stream ``name`` of records with ``properties``, keyed by ``id``, found at ``field_path`` of each answer."""
    retriever = {
        "type": "SimpleRetriever",
        "requester": {"type": "HttpRequester", **requester},
        "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": field_path}},
        **({"paginator": paginator} if paginator else {}),
    }
    schema = {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": properties}}
    stream = {"type": "DeclarativeStream", "name": name, "primary_key": ["id"], "retriever": retriever, "schema_loader": schema}
    return {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": [name]},
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": config or {}}},
        "streams": [{**stream, **of_stream}],
    }
