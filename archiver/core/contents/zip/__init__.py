"""A zipped HLS tree, unpacked while it is streamed.

May import what archiver.core.contents may, its root and contents.hls.
"""
