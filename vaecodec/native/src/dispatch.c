// Find the kinds that this library holds and this processor runs, and their kernels by name.
#include "core.h"

#if defined(__x86_64__) || defined(_M_X64)
extern const vc_kind vc_plain, vc_sse2, vc_avx2, vc_avx512, vc_avx512vnni;
enum { HAS_AVX2 = 1, HAS_AVX512 = 2, HAS_VNNI = 4 };

static void cpuid(unsigned leaf, unsigned subleaf, unsigned registers[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(registers[0]), "=b"(registers[1]), "=c"(registers[2]), "=d"(registers[3])
                     : "a"(leaf), "c"(subleaf));
}

static int features(void) {
    unsigned r[4], low, high;
    int has = 0;
    cpuid(0, 0, r);
    if (r[0] < 7) return 0;
    cpuid(1, 0, r);
    if (!(r[2] >> 27 & 1) || !(r[2] >> 12 & 1)) return 0;  // OSXSAVE and FMA
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    cpuid(7, 0, r);
    if ((low & 6) == 6 && (r[1] >> 5 & 1)) has |= HAS_AVX2;
    // The system keeps 512-bit registers, and F, DQ, BW and VL are there.
    if ((low & 0xe6) == 0xe6 && (r[1] >> 16 & 1) && (r[1] >> 17 & 1) && (r[1] >> 30 & 1) && (r[1] >> 31 & 1)) {
        has |= HAS_AVX512;
        if (r[2] >> 11 & 1) has |= HAS_VNNI;
    }
    return has;
}
#elif defined(__aarch64__)
extern const vc_kind vc_plain, vc_neon;
#elif defined(__wasm__)  // a module with SIMD is refused as a whole where there is none
extern const vc_kind vc_plain, vc_wasm;
#else
extern const vc_kind vc_plain;
#endif

// The n-th kind that this processor runs, the best last; NULL beyond.
static const vc_kind *kind(int n) {
    const vc_kind *all[6];
    int count = 0;
    all[count++] = &vc_plain;
#if defined(__x86_64__) || defined(_M_X64)
    int has = features();
    all[count++] = &vc_sse2;
    if (has & HAS_AVX2) all[count++] = &vc_avx2;
    if ((has & HAS_AVX2) && (has & HAS_AVX512)) all[count++] = &vc_avx512;
    if ((has & HAS_AVX2) && (has & HAS_AVX512) && (has & HAS_VNNI)) all[count++] = &vc_avx512vnni;
#elif defined(__aarch64__)
    all[count++] = &vc_neon;
#elif defined(__wasm__)
    all[count++] = &vc_wasm;
#endif
    return n >= 0 && n < count ? all[n] : NULL;
}

// A checksum of the sources, by which Python tells a library of its own version from others.
VC_API uint32_t vc_sources(void) { return VC_SOURCES; }

VC_API const char *vc_kind_name(int n) {
    const vc_kind *chosen = kind(n);
    return chosen ? chosen->name : NULL;
}

VC_API vc_kernel vc_kernel_of(int n, const char *name) {
    const vc_kind *chosen = kind(n);
    if (!chosen) return NULL;
    for (const vc_entry *entry = chosen->kernels; entry->name; entry++)
        if (!strcmp(entry->name, name)) return entry->kernel;
    return NULL;
}
