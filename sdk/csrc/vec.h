// Sixteen or four floats as one value (GCC and Clang vector extensions): the compiler lowers them to what the machine has.
#pragma once

#include <cstring>

#include "common.h"

namespace kerf {

typedef float f32x16 __attribute__((vector_size(64)));
typedef float f32x4 __attribute__((vector_size(16)));

// Unaligned load and store; memcpy of a fixed size is one instruction.
template <class V>
KERF_INLINE V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V>
KERF_INLINE void store(float* p, const V& v) {
    std::memcpy(p, &v, sizeof v);
}

// The 4 x 4 block at `from` (row stride `from_stride`), transposed, to `to`.
KERF_INLINE void transpose_4x4(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    const f32x4 a = load<f32x4>(from), b = load<f32x4>(from + from_stride), c = load<f32x4>(from + 2 * from_stride),
                d = load<f32x4>(from + 3 * from_stride);
#if defined(__clang__)
    const f32x4 ab_lo = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_hi = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const f32x4 cd_lo = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_hi = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    store(to, __builtin_shufflevector(ab_lo, cd_lo, 0, 1, 4, 5));
    store(to + to_stride, __builtin_shufflevector(ab_lo, cd_lo, 2, 3, 6, 7));
    store(to + 2 * to_stride, __builtin_shufflevector(ab_hi, cd_hi, 0, 1, 4, 5));
    store(to + 3 * to_stride, __builtin_shufflevector(ab_hi, cd_hi, 2, 3, 6, 7));
#else
    typedef int i32x4 __attribute__((vector_size(16)));
    const i32x4 low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
    const f32x4 ab_lo = __builtin_shuffle(a, b, low), ab_hi = __builtin_shuffle(a, b, high);
    const f32x4 cd_lo = __builtin_shuffle(c, d, low), cd_hi = __builtin_shuffle(c, d, high);
    store(to, __builtin_shuffle(ab_lo, cd_lo, first));
    store(to + to_stride, __builtin_shuffle(ab_lo, cd_lo, second));
    store(to + 2 * to_stride, __builtin_shuffle(ab_hi, cd_hi, first));
    store(to + 3 * to_stride, __builtin_shuffle(ab_hi, cd_hi, second));
#endif
}

// (rows, columns) -> (columns, rows).
KERF_INLINE void transpose(const float* from, int64_t from_stride, int64_t rows, int64_t columns, float* to, int64_t to_stride) {
    const int64_t even_rows = rows & ~int64_t{3}, even_columns = columns & ~int64_t{3};
    for (int64_t c = 0; c < even_columns; c += 4)
        for (int64_t r = 0; r < even_rows; r += 4) transpose_4x4(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    for (int64_t c = 0; c < columns; ++c)
        for (int64_t r = c < even_columns ? even_rows : 0; r < rows; ++r) to[c * to_stride + r] = from[r * from_stride + c];
}

}  // namespace kerf
