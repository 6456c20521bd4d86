"""Actions of any video: on the whole, as a test scores it, and over time; as tables, plots and annotated videos."""
