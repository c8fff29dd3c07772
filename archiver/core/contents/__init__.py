"""Find what an asset consists of by reading it: one file, an HLS tree, a zip of one, thumbnails.

May import records (for keys), archiver.transfer and archiver.hms.
"""
