"""`celery -A worker.app worker|beat|flower`. The only module with side effects at import."""

from __future__ import annotations

import sys

from worker.bootstrap import build_app
from worker.errors import SettingsError
from worker.logs.setup import setup_celery_logging
from worker.settings import load_settings

try:
    settings = load_settings()
    app = build_app(settings)
except (SettingsError, RuntimeError) as error:
    sys.exit(f"archiver: {error}")
setup_celery_logging(settings)
