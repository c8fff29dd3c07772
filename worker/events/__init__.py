"""Send events to the team's own receiver, signed as standard-webhooks say. `archiver.core.events` words them.

May import archiver.core and worker.settings.
"""
