"""Named faults of responses and connections, and which request meets which.

May import archiver.simulator.endpoints.serving.
"""
