"""One patch as an image file: bytes in, uint8 [96, 96, 3] out, and back."""
