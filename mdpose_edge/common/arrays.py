"""What numpy raises at a damaged .npy or .npz file."""

from __future__ import annotations

from tokenize import TokenError

ARRAY_ERRORS = (OSError, ValueError, SyntaxError, TokenError, MemoryError, OverflowError)
"""The header is Python's text, read by Python's tokenizer: of 40,000 with changed bytes, a third end in TokenError."""
