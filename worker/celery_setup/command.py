"""`celery`, with our own modules and nobody else's: `python -P -m worker.celery_setup.command -A worker.app ...`.

Celery puts the current directory before everything else while it imports the application, so that a folder with a
`tasks.py` or a `worker/` of its own would be imported instead of ours. What is imported already stays.
"""

from __future__ import annotations

import importlib
import sys

from celery.__main__ import main

from worker.celery_setup import processes

if processes.APP in sys.argv:
    importlib.import_module(processes.APP)
sys.exit(main())
