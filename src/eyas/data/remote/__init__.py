"""Data sets that stay in object storage, read through fsspec.

On each host stands a mirror of what a description names, in the cache folder: label files whole, and in place of each
image an empty file of its size, whose time of change stands for the version of the original. So whatever lists,
compares and sorts files works as on local ones. Images themselves come when they are needed, or a while before, into a
bounded cache (`kept`); `eyas.data.image_file` reads them.

    address   URLs, the paths that stand for them, and where all that lies
    service   fsspec: listing, facts, bytes; errors for people, patience with faults that pass
    mirror    the tree of label files and stand-ins
    bring     which places of a description are mirrored
    kept      the bounded cache
    images    bytes of one image, from the cache or from afar
    ahead     threads that fetch the coming images of an epoch
"""
