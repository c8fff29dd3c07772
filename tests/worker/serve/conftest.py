from __future__ import annotations

from tests.valkey import redis_url, shared_valkey  # noqa: F401 # fixtures
from tests.walkthrough.conftest import empty_simulator  # noqa: F401 # fixture
