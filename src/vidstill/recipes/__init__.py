"""The papers' settings as data: one file per paper, another for its fine-tunings; a recipe is named `file.variable`.

What a file shares with another it takes by that file's name, `videomae.K400`: by its own it would be listed twice.
"""
