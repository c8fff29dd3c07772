from tests.servers import azurite_server, gcs_server, moto_server  # noqa: F401 # fixtures
from tests.valkey import shared_valkey  # noqa: F401 # a fixture
