// Template of one kind: kind_*.c defines VC_KIND (an identifier) and VC_KIND_NAME, includes its simd_*.h, then this.
#include "core.h"

#include "networks.h"
#include "prior.h"
#include "symbols.h"
#include "wavelet.h"
#include "transforms.h"
#include "restoration.h"

#define VC_ENTRY(function) {#function, (vc_kernel)function},
static const vc_entry entries[] = {
    NETWORK_KERNELS(VC_ENTRY) PRIOR_KERNELS(VC_ENTRY) SYMBOL_KERNELS(VC_ENTRY) WAVELET_KERNELS(VC_ENTRY)
    TRANSFORM_KERNELS(VC_ENTRY) RESTORATION_KERNELS(VC_ENTRY)
    {NULL, NULL},
};
const vc_kind VC_KIND = {VC_KIND_NAME, entries};
