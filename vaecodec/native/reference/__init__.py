"""The kernels of the native core in NumPy: short, readable, and normative beside docs/reference/format.md."""
