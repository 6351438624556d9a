// Boxes x1, y1, x2, y2 in pixels, width = x2 - x1, and the box coder that proposals and select share.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>

namespace kerf {

struct Box {
    float x1, y1, x2, y2;
};

inline float box_area(const Box& b) { return std::max(0.0f, b.x2 - b.x1) * std::max(0.0f, b.y2 - b.y1); }

inline bool is_finite(const Box& b) { return std::isfinite(b.x1) && std::isfinite(b.y1) && std::isfinite(b.x2) && std::isfinite(b.y2); }

// Faster R-CNN's parametrisation; a box grows at most 62.5 times (1000 / 16) in one step.
struct BoxCoder {
    float wx = 1.0f, wy = 1.0f, ww = 1.0f, wh = 1.0f;  // deltas (dx, dy, dw, dh) are divided by these

    // The decoded box, cut to a picture; nothing when the source or a delta is not finite. In double, because a centre plus a shift cancels.
    std::optional<Box> decode(const Box& source, const float (&deltas)[4], float height, float width) const {
        const double kMaxLogScale = 4.135166556742356;  // log(1000 / 16)
        const double w = static_cast<double>(source.x2) - source.x1, h = static_cast<double>(source.y2) - source.y1;
        const double cx = source.x1 + (0.5 + deltas[0] / static_cast<double>(wx)) * w;
        const double cy = source.y1 + (0.5 + deltas[1] / static_cast<double>(wy)) * h;
        // Written so that NaN stays NaN, where std::min(limit, NaN) would give the limit.
        const double log_w = deltas[2] / static_cast<double>(ww), log_h = deltas[3] / static_cast<double>(wh);
        const double half_w = 0.5 * w * std::exp(log_w > kMaxLogScale ? kMaxLogScale : log_w);
        const double half_h = 0.5 * h * std::exp(log_h > kMaxLogScale ? kMaxLogScale : log_h);
        const double corners[4] = {cx - half_w, cy - half_h, cx + half_w, cy + half_h};
        for (const double corner : corners)
            if (!std::isfinite(corner)) return std::nullopt;
        const auto cut = [](double value, float limit) { return static_cast<float>(std::clamp(value, 0.0, static_cast<double>(limit))); };
        return Box{cut(corners[0], width), cut(corners[1], height), cut(corners[2], width), cut(corners[3], height)};
    }
};

}  // namespace kerf
