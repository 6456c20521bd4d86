"""The quickstart: a student distilled from a teacher, beside one pre-trained on pixels and one from scratch."""
