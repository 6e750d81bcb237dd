"""`torchrun ... -m mdpose_edge.train CONFIG ...`: the command `mdpose-edge train`, as torchrun can start it."""

import sys

from mdpose_edge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
