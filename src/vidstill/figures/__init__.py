"""Images, charts and pages: what models see, predict and score."""
