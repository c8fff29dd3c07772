"""The assets of the simulated workspace: their kinds, their sets, and the bytes of their files.

May import archiver.simulator.config and clock.
"""
