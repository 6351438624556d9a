// Boxes x1, y1, x2, y2 in pixels, width = x2 - x1, and the box coder that proposals and select share.
#pragma once

#include <algorithm>
#include <cmath>

namespace kerf {

struct Box {
    float x1, y1, x2, y2;
};

inline float box_area(const Box& b) { return std::max(0.0f, b.x2 - b.x1) * std::max(0.0f, b.y2 - b.y1); }

inline bool is_finite(const Box& b) { return std::isfinite(b.x1) && std::isfinite(b.y1) && std::isfinite(b.x2) && std::isfinite(b.y2); }

inline Box clip(const Box& b, float height, float width) {
    return {std::clamp(b.x1, 0.0f, width), std::clamp(b.y1, 0.0f, height), std::clamp(b.x2, 0.0f, width), std::clamp(b.y2, 0.0f, height)};
}

// Faster R-CNN's parametrisation; a box grows at most 62.5 times (1000 / 16) in one step.
struct BoxCoder {
    float wx = 1.0f, wy = 1.0f, ww = 1.0f, wh = 1.0f;  // deltas are divided by these

    // The result is not finite when the source or a delta is not.
    Box decode(const Box& source, float dx, float dy, float dw, float dh) const {
        constexpr float kMaxLogScale = 4.135166556742356f;  // log(1000 / 16)
        const float width = source.x2 - source.x1, height = source.y2 - source.y1;
        const float cx = source.x1 + 0.5f * width + dx / wx * width;
        const float cy = source.y1 + 0.5f * height + dy / wy * height;
        // Written so that NaN stays NaN, where std::min(limit, NaN) would give the limit.
        const float log_w = dw / ww, log_h = dh / wh;
        const float half_w = 0.5f * width * std::exp(log_w > kMaxLogScale ? kMaxLogScale : log_w);
        const float half_h = 0.5f * height * std::exp(log_h > kMaxLogScale ? kMaxLogScale : log_h);
        return {cx - half_w, cy - half_h, cx + half_w, cy + half_h};
    }
};

}  // namespace kerf
