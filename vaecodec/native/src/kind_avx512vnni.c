#if defined(__x86_64__) || defined(_M_X64)
#define VC_512
#define VC_VNNI
#define VC_KIND vc_avx512vnni
#define VC_KIND_NAME "avx512vnni"
#include "simd_x86.h"
#include "kind.h"
#endif
