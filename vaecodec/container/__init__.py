"""The .vae container: chunks and headers <-> bytes.  Standard library only."""
