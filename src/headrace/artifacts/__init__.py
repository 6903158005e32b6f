"""Artifacts: streamed between the client and the local disk or S3, in constant memory.

store.py is the contract, local.py and s3.py keep it; locations.py finds the store of a URI; paths.py says which paths
are plain enough to be answered here; transfer.py speaks HTTP; routes.py is the table of endpoints.
"""
