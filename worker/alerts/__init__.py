"""Send alerts through Apprise, and call the dead-man's switch. What is sent, and to whom: `archiver.core.alerts`.

May import archiver.core and worker.settings.
"""
