#if defined(__aarch64__)
#define VC_KIND vc_neon
#define VC_KIND_NAME "neon"
#include "simd_neon.h"
#include "kind.h"
#endif
