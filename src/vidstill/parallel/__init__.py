"""A pool of processes that survives a worker which hangs or dies."""
