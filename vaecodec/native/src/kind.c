// One kind of processor: build.py compiles this file once for each, with -DVC_KIND=sse2 and so on.
#include "core.h"

#if defined(VC_PLAIN)
#include "simd_plain.h"
#elif defined(__x86_64__) || defined(_M_X64)
#include "simd_x86.h"
#elif defined(__aarch64__)
#include "simd_neon.h"
#elif defined(__wasm_simd128__)
#include "simd_wasm.h"
#endif

#include "networks.h"
#include "prior.h"
#include "trellis.h"
#include "symbols.h"
#include "wavelet.h"
#include "transforms.h"
#include "restoration.h"
#include "gradients.h"
#include "refinement.h"
#include "lossless_fit.h"
#include "lossless_bits.h"
#include "lossless.h"

#define VC_ENTRY(function) {#function, (vc_kernel)function},
static const vc_entry entries[] = {
    NETWORK_KERNELS(VC_ENTRY) PRIOR_KERNELS(VC_ENTRY) TRELLIS_KERNELS(VC_ENTRY) SYMBOL_KERNELS(VC_ENTRY)
    WAVELET_KERNELS(VC_ENTRY) TRANSFORM_KERNELS(VC_ENTRY) RESTORATION_KERNELS(VC_ENTRY) GRADIENT_KERNELS(VC_ENTRY)
    REFINEMENT_KERNELS(VC_ENTRY) LOSSLESS_KERNELS(VC_ENTRY)
    {NULL, NULL},
};
#define VC_DEFINE_(kind) const vc_kind vc_##kind = {#kind, entries};
#define VC_DEFINE(kind) VC_DEFINE_(kind)
VC_DEFINE(VC_KIND)
