"""The yardstick of `vidstill bench`: each method read plainly from its paper, without any optimization."""
