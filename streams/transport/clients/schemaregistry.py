"""Schemas by id from a Confluent Schema Registry, resolved before a step. It decodes nothing and keeps no subject."""

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka.schema_registry import AsyncSchemaRegistryClient, SchemaRegistryError

NOT_FOUND = 404


class RegistryUnavailableError(RuntimeError):
    """The registry does not answer, or not as a registry: pause and ask again; no record is to blame."""


class SchemaRegistry:
    """Resolves schema ids once; an id means the same for ever, and so does its text.

    An id the registry does not know is asked for again whenever it turns up: a schema may be registered late.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, options: Mapping[str, Any] | None = None) -> None:
        settings = {"url": url, "timeout": timeout_s, "max.retries": 1, "retries.wait.ms": 200, **(options or {})}
        self._client = AsyncSchemaRegistryClient(settings)
        self._known: dict[int, str] = {}

    async def resolve(self, ids: Iterable[int]) -> Mapping[int, str | None]:
        """Return the Avro schema text of each id; None for one the registry does not know.

        Raises:
            RegistryUnavailableError: An id could not be looked up.
        """
        return {number: await self._text(number) for number in sorted(set(ids))}

    async def _text(self, number: int) -> str | None:
        if number in self._known:
            return self._known[number]
        try:
            schema = await self._client.get_schema(number)
        except SchemaRegistryError as exc:
            if exc.http_status_code == NOT_FOUND:
                return None
            raise RegistryUnavailableError(f"schema {number}: {exc}") from exc
        except Exception as exc:
            # The client lets errors of its HTTP library through, and of parsing what is no registry's answer.
            raise RegistryUnavailableError(f"schema {number}: {exc!r}") from exc
        text = schema.schema_str
        if text is None:
            raise RegistryUnavailableError(f"schema {number}: the registry's answer holds no schema")
        self._known[number] = text
        return text
