"""`python -m mdpose_edge`: the command line, as torchrun can start it."""

from mdpose_edge.cli import main

if __name__ == "__main__":
    main()
