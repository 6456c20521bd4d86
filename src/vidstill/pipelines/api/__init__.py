"""The verbs of the command line as functions of plain keyword arguments; `vidstill` exports them."""
