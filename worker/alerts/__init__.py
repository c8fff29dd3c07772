"""Tell people: alerts through Apprise, and the dead-man's switch. What is told, and to whom, is `archiver.core.alerts`.

May import archiver.core and worker.settings.
"""
