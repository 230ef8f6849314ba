// The native core: the integer kernels of the codec in C11, with no dependency but libc.
//
// Every kernel is written once, in a header that kind.c includes, and compiled once for each kind of processor ("kind"): plain C,
// SSE2, AVX2, AVX-512, AVX-512 with VNNI, NEON, wasm SIMD.  Kernels allocate nothing, start no threads, and trust the
// sizes they are given: the Python callers check them (vaecodec/native/*.py).  Each has a NumPy twin in
// vaecodec/native/reference, which gives the same integers.
#ifndef VC_CORE_H
#define VC_CORE_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define VC_API __declspec(dllexport)
#elif defined(__wasm__)
#define VC_API __attribute__((visibility("default"), used))
#else
#define VC_API __attribute__((visibility("default")))
#endif

// Vector operations, and what is specialised by constant arguments: compilers stop inlining as a file grows.
#define VC_INLINE static inline __attribute__((always_inline))

// Arithmetic modulo 2^32: signed overflow is undefined in C, and hostile input may reach it.
VC_INLINE int32_t vc_add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
VC_INLINE int32_t vc_sub(int32_t a, int32_t b) { return (int32_t)((uint32_t)a - (uint32_t)b); }
VC_INLINE int32_t vc_mul(int32_t a, int32_t b) { return (int32_t)((uint32_t)a * (uint32_t)b); }

VC_INLINE int32_t vc_clip(int32_t x, int32_t low, int32_t high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

typedef void (*vc_kernel)(void);
typedef struct {
    const char *name;
    vc_kernel kernel;
} vc_entry;

// One kind: its name and its kernels, ended by a NULL name.
typedef struct {
    const char *name;
    const vc_entry *kernels;
} vc_kind;

#endif
