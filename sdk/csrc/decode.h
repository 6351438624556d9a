// Boxes from deltas, one for each source. Contract: sdk/ops/decode.py.
#pragma once

#include <cstdint>

#include "boxes.h"

namespace kerf {

// Decodes `deltas` (N, 4) against `boxes` (N) into `out` (N), cut to the picture. A box that is not finite becomes (0, 0, 0, 0).
void decode_boxes(const float* deltas, const Box* boxes, int64_t count, const BoxCoder& coder, float height, float width, Box* out);

}  // namespace kerf
