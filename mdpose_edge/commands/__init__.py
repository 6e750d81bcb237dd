"""The subcommands of `mdpose-edge`, one module for each stage; cli.py gathers them."""
