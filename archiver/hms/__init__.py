"""The API of 100ms: listing assets, fresh pre-signed URLs, tokens, webhooks.

May import archiver.http only.
"""
