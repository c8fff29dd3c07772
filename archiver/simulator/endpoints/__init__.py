"""What answers requests: the API, the storage, the CDN, the control endpoints; and the webhooks.

May import everything of archiver.simulator but app and server.
"""
