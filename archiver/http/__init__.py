"""The one HTTP client, on libcurl, and the TLS trust policy.

Imports nothing else of this project.
"""
