"""Rate limits that all processes hold together: bytes or requests per second. Imports nothing of the rest."""
