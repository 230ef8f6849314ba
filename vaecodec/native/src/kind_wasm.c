#if defined(__wasm_simd128__)
#define VC_KIND vc_wasm
#define VC_KIND_NAME "wasm"
#include "simd_wasm.h"
#include "kind.h"
#endif
