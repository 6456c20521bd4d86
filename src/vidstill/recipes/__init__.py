"""The papers' settings as data: one file per paper; a recipe is named `file.variable`.

What a file shares with another is imported by that file's name, `videomae.K400`: by its own name it would be listed
twice.
"""
