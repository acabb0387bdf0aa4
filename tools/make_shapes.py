"""Draws the built-in shapes data: `python tools/make_shapes.py easy`."""

from swin_mm.cli.shapes import main

if __name__ == "__main__":
    main()
