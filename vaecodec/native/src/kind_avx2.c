#if defined(__x86_64__) || defined(_M_X64)
#define VC_256
#define VC_KIND vc_avx2
#define VC_KIND_NAME "avx2"
#include "simd_x86.h"
#include "kind.h"
#endif
