"""`celery`, importing our modules only: `python -P -m worker.celery_setup.command -A worker.app ...`.

Celery puts the current directory first on the path while it imports the application, so that a folder with a
`tasks.py` or a `worker/` would shadow ours. Modules imported before that are not affected.
"""

from __future__ import annotations

import importlib
import sys

from celery.__main__ import main

from worker.celery_setup import processes

if processes.APP in sys.argv:
    importlib.import_module(processes.APP)
sys.exit(main())
