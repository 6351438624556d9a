// Sixteen or four floats as one value (GCC and Clang vector extensions): the compiler lowers them to what the machine has.
#pragma once

#include <cstring>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

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

// Stores past the caches to a 16-byte aligned place: a line that is written whole need not be read first. finish_streaming() must follow
// before another thread reads.
KERF_INLINE void store_streaming(float* p, const f32x4& v) {
#if defined(__SSE__)
    _mm_stream_ps(p, reinterpret_cast<const __m128&>(v));
#else
    store(p, v);
#endif
}
KERF_INLINE void finish_streaming() {
#if defined(__SSE__)
    _mm_sfence();
#endif
}

struct Block4x4 {
    f32x4 rows[4];
};

// The 4 x 4 block at `from` (row stride `stride`), transposed.
KERF_INLINE Block4x4 load_transposed(const float* from, int64_t stride) {
    const f32x4 a = load<f32x4>(from), b = load<f32x4>(from + stride), c = load<f32x4>(from + 2 * stride), d = load<f32x4>(from + 3 * stride);
#if defined(__clang__)
    const f32x4 ab_lo = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_hi = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const f32x4 cd_lo = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_hi = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    return {{__builtin_shufflevector(ab_lo, cd_lo, 0, 1, 4, 5), __builtin_shufflevector(ab_lo, cd_lo, 2, 3, 6, 7),
             __builtin_shufflevector(ab_hi, cd_hi, 0, 1, 4, 5), __builtin_shufflevector(ab_hi, cd_hi, 2, 3, 6, 7)}};
#else
    typedef int i32x4 __attribute__((vector_size(16)));
    const i32x4 low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
    const f32x4 ab_lo = __builtin_shuffle(a, b, low), ab_hi = __builtin_shuffle(a, b, high);
    const f32x4 cd_lo = __builtin_shuffle(c, d, low), cd_hi = __builtin_shuffle(c, d, high);
    return {{__builtin_shuffle(ab_lo, cd_lo, first), __builtin_shuffle(ab_lo, cd_lo, second), __builtin_shuffle(ab_hi, cd_hi, first),
             __builtin_shuffle(ab_hi, cd_hi, second)}};
#endif
}

// (rows, columns) -> (columns, rows).
KERF_INLINE void transpose(const float* from, int64_t from_stride, int64_t rows, int64_t columns, float* to, int64_t to_stride) {
    const int64_t even_rows = rows & ~int64_t{3}, even_columns = columns & ~int64_t{3};
    for (int64_t c = 0; c < even_columns; c += 4)
        for (int64_t r = 0; r < even_rows; r += 4) {
            const Block4x4 block = load_transposed(from + r * from_stride + c, from_stride);
            for (int64_t k = 0; k < 4; ++k) store(to + (c + k) * to_stride + r, block.rows[k]);
        }
    for (int64_t c = 0; c < columns; ++c)
        for (int64_t r = c < even_columns ? even_rows : 0; r < rows; ++r) to[c * to_stride + r] = from[r * from_stride + c];
}

}  // namespace kerf
