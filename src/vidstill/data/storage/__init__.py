"""Local and remote files: listed, fetched, and packed in tar shards."""
