// Small arithmetic that several operators share.
#pragma once

#include <cstdint>
#include <cstring>

#include "common.h"

namespace kerf {

// exp(x) within 3e-7 relative, without branches or library calls, so that loops around it vectorise. Arguments are clamped to
// [-87, 88] (no overflow, no denormals); NaN stays NaN. exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, Taylor to r^7.
KERF_INLINE float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits of the sum.
    const float shifted = x * 1.44269504f + 12582912.0f;
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // ln 2 in two parts: the first has zeros at its end
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    p += 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000u + 127u) << 23;  // 2^n
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

// A key that sorts like the float, ascending, for every value; -0 equals +0 and NaN comes first.
KERF_INLINE uint32_t sortable(float value) {
    if (value != value) return 0;
    const float canonical = value + 0.0f;
    uint32_t bits;
    std::memcpy(&bits, &canonical, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Sorts ascending by descending score, ties by ascending index.
KERF_INLINE uint64_t rank_key(float score, uint32_t index) {
    return static_cast<uint64_t>(~sortable(score)) << 32 | index;
}
KERF_INLINE uint32_t rank_index(uint64_t key) { return static_cast<uint32_t>(key); }

}  // namespace kerf
