// Vector operations of the dense and depthwise kernels: see networks.h.
