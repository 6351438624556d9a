#include "decode.h"

#include "thread_pool.h"

namespace kerf {

void decode_boxes(const float* deltas, const Box* boxes, int64_t count, const BoxCoder& coder, float height, float width, Box* out) {
    parallel_for(count, 512, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const float* d = deltas + 4 * n;
            out[n] = coder.decode(boxes[n], {d[0], d[1], d[2], d[3]}, height, width).value_or(Box{0.0f, 0.0f, 0.0f, 0.0f});
        }
    });
}

}  // namespace kerf
