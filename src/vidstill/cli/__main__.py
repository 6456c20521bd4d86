"""`python -m vidstill.cli`, which torchrun starts."""

from vidstill.cli.main import program

if __name__ == "__main__":
    program()
