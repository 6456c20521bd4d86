"""Types, random numbers, configuration files, atomic writes, FLOPs, the terminal."""
