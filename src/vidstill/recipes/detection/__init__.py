"""The detectors of AVA's actions: what the papers report, and the released settings that they were made with."""
