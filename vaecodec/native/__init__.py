"""The integer kernels of the codec: a small C library, and the same functions in NumPy.

A kernel has one Python function, in `networks`, `prior`, `symbols`, `wavelet`, `transforms` or `lossless`.  It checks
shapes and calls the C library, or the NumPy twin in `reference` where there is no library.  Both give the same
integers.
VAECODEC_CORE=numpy, plain, sse2, avx2, avx512, avx512vnni or neon forces one.
"""
