// Layers (layer.h) on 8-bit tensor units alone.
#include "layer.h"

SONIQ_CUDA_LAYER(layer_f32__sm80_imma, "imma_s8", 256, 64, LayerKernel<Bytes<1>, Bytes<2>, Bytes<4>, Bytes<8>>)
