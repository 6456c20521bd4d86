"""The layouts of foreign files, each in a file of its own: how it is recognised, what it holds, what its names mean."""
