"""The papers' settings as data: one file per paper; a recipe is named `file.variable`."""
