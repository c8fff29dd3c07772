"""What the tests here share."""

from tests.valkey import redis_url, shared_valkey

__all__ = ["redis_url", "shared_valkey"]
