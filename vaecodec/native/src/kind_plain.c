#define VC_KIND vc_plain
#define VC_KIND_NAME "plain"
#include "simd_plain.h"
#include "kind.h"
