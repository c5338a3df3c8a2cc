// Layers (layer.h) where 1-bit tensor units are native: bit planes for few of them, bytes for the rest.
#include "layer.h"

SONIQ_CUDA_LAYER(layer_f32__sm80_bmma, "bmma_and", 256, 64,
                 LayerKernel<Planes<1, 1>, Planes<1, 2>, Planes<1, 4>, Planes<2, 2>, Bytes<1>, Bytes<2>, Bytes<4>, Bytes<8>>)
