#if defined(__x86_64__) || defined(_M_X64)
#define VC_KIND vc_sse2
#define VC_KIND_NAME "sse2"
#include "simd_x86.h"
#include "kind.h"
#endif
