"""Files here or behind an address: listed, fetched, and packed in tar shards."""
