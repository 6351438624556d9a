#include "paste.h"

#include <algorithm>
#include <cmath>

#include "arithmetic.h"
#include "common.h"
#include "rle.h"
#include "thread_pool.h"

// A mask is bilinear between grid nodes, so along one line of pixels (a row for crops, a column for run lengths) it is linear from node to
// node. Where both nodes are clearly above or clearly below the threshold, a whole stretch is decided at once; only stretches that cross it
// are evaluated pixel by pixel, in float32, and a pixel closer to the threshold than float32 can tell is evaluated by the definition.

namespace kerf {
namespace {

constexpr float kMargin = 1e-5f;  // far above the float32 error of a value in [0, 1]

// The definition, part 1: the grid coordinate of a pixel's centre.
double grid_coordinate(int64_t pixel, double low, double high, int64_t nodes) {
    return (static_cast<double>(pixel) + 0.5 - low) / (high - low) * static_cast<double>(nodes) - 0.5;
}

// The definition, part 2.
double sigmoid(float logit) {
    const double x = logit;
    if (x >= 0.0) return 1.0 / (1.0 + std::exp(-x));
    const double e = std::exp(x);
    return e / (1.0 + e);
}

// First pixel of [0, size) for which the monotone condition holds, or size.
template <class Condition>
int64_t first_pixel(int64_t size, const Condition& condition) {
    int64_t low = 0, high = size;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (condition(middle))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct Interval {
    int64_t begin, end;
};

Interval reachable_pixels(double low, double high, int64_t nodes, int64_t size) {
    return {first_pixel(size, [=](int64_t p) { return grid_coordinate(p, low, high, nodes) > -1.0; }),
            first_pixel(size, [=](int64_t p) { return grid_coordinate(p, low, high, nodes) >= static_cast<double>(nodes); })};
}

// Pixels of one axis on the padded grid (one node of zeros on either side): pixel i lies between nodes cell[i] and cell[i] + 1.
struct Axis {
    std::vector<int32_t> cell;
    std::vector<double> fraction;
    std::vector<int32_t> first;  // first[c]: first pixel with cell >= c; nodes + 2 entries

    void build(int64_t begin, int64_t end, double low, double high, int64_t nodes) {
        cell.clear();
        fraction.clear();
        first.clear();
        for (int64_t pixel = begin; pixel < end; ++pixel) {
            const double g = grid_coordinate(pixel, low, high, nodes), floor = std::floor(g);
            cell.push_back(static_cast<int32_t>(floor) + 1);
            fraction.push_back(g - floor);
            while (static_cast<int32_t>(first.size()) <= cell.back()) first.push_back(static_cast<int32_t>(pixel - begin));
        }
        first.resize(static_cast<size_t>(nodes + 2), static_cast<int32_t>(end - begin));
    }
};

KERF_CLONES void sigmoid_row(const float* logits, int64_t count, float* probabilities) {
    for (int64_t i = 0; i < count; ++i) probabilities[i] = 1.0f / (1.0f + fast_exp(-logits[i]));
}

// Values of a line at all nodes it crosses, and how each stands to the threshold: 2 clearly above, 0 clearly below, 1 neither (or NaN).
KERF_CLONES void classify_nodes(const float* a, const float* b, float fraction, float threshold, int64_t count, float* value,
                                uint8_t* side) {
    const float above = threshold + kMargin, below = threshold - kMargin;
    for (int64_t i = 0; i < count; ++i) {
        value[i] = a[i] + fraction * (b[i] - a[i]);
        side[i] = static_cast<uint8_t>(1 + (value[i] >= above) - (value[i] < below));
    }
}

enum class Lines { rows, columns };

// One instance, ready to be walked line by line. Reused from instance to instance.
class PastedMask {
public:
    explicit PastedMask(Lines direction) : direction_(direction) {}

    void set(const MaskGrids& masks, int64_t n, const PixelBox& crop, double threshold) {
        height_ = masks.height;
        width_ = masks.width;
        logits_ = masks.logits + n * height_ * width_;
        threshold_ = threshold;
        const Box& box = masks.boxes[n];
        x_.build(crop.x1, crop.x2, box.x1, box.x2, width_);
        y_.build(crop.y1, crop.y2, box.y1, box.y2, height_);
        exact_.clear();
        fill_grid();
    }

    // Calls run(begin, end) for the foreground runs of line `i` of the crop, ascending; runs may touch.
    template <class Run>
    void walk(int64_t i, const Run& run) {
        const Axis &across = direction_ == Lines::rows ? y_ : x_, &along = direction_ == Lines::rows ? x_ : y_;
        const int64_t nodes = (direction_ == Lines::rows ? width_ : height_) + 2;
        const float* a = grid_.data() + across.cell[i] * nodes;
        classify_nodes(a, a + nodes, static_cast<float>(across.fraction[i]), static_cast<float>(threshold_), nodes, value_.data(), side_.data());
        for (int64_t c = 0; c + 1 < nodes; ++c) {
            const int sides = side_[c] + side_[c + 1];
            const int32_t begin = along.first[c], end = along.first[c + 1];
            if (sides == 0 || begin == end) continue;
            if (sides == 4)
                run(begin, end);
            else
                walk_pixels(i, c, begin, end, along, run);
        }
    }

private:
    template <class Run>
    void walk_pixels(int64_t i, int64_t c, int32_t begin, int32_t end, const Axis& along, const Run& run) {
        const float from = value_[c], step = value_[c + 1] - value_[c], threshold = static_cast<float>(threshold_);
        int32_t open = -1;
        for (int32_t j = begin; j < end; ++j) {
            const float value = from + static_cast<float>(along.fraction[j]) * step;
            const bool foreground = std::abs(value - threshold) < kMargin ? is_foreground(i, j) : value >= threshold;
            if (foreground && open < 0) open = j;
            if (!foreground && open >= 0) {
                run(open, j);
                open = -1;
            }
        }
        if (open >= 0) run(open, end);
    }

    // The definition, part 3, in float64.
    bool is_foreground(int64_t line, int64_t position) {
        if (exact_.empty()) fill_exact();
        const int64_t y = direction_ == Lines::rows ? line : position, x = direction_ == Lines::rows ? position : line;
        const double* top = exact_.data() + y_.cell[y] * (width_ + 2) + x_.cell[x];
        const double* bottom = top + width_ + 2;
        const double upper = top[0] + x_.fraction[x] * (top[1] - top[0]);
        const double lower = bottom[0] + x_.fraction[x] * (bottom[1] - bottom[0]);
        return upper + y_.fraction[y] * (lower - upper) >= threshold_;
    }

    void fill_exact() {
        exact_.assign(static_cast<size_t>((height_ + 2) * (width_ + 2)), 0.0);
        for (int64_t y = 0; y < height_; ++y)
            for (int64_t x = 0; x < width_; ++x) exact_[(y + 1) * (width_ + 2) + x + 1] = sigmoid(logits_[y * width_ + x]);
    }

    // Probabilities with a ring of zeros, stored so that the nodes of a line are contiguous.
    void fill_grid() {
        probabilities_.resize(static_cast<size_t>(height_ * width_));
        sigmoid_row(logits_, height_ * width_, probabilities_.data());
        grid_.assign(static_cast<size_t>((height_ + 2) * (width_ + 2)), 0.0f);
        const int64_t along_y = direction_ == Lines::rows ? width_ + 2 : 1, along_x = direction_ == Lines::rows ? 1 : height_ + 2;
        for (int64_t y = 0; y < height_; ++y)
            for (int64_t x = 0; x < width_; ++x) grid_[(y + 1) * along_y + (x + 1) * along_x] = probabilities_[y * width_ + x];
        value_.resize(static_cast<size_t>(std::max(height_, width_) + 2));
        side_.resize(value_.size());
    }

    Lines direction_;
    int64_t height_ = 0, width_ = 0;
    const float* logits_ = nullptr;
    double threshold_ = 0.5;
    Axis x_, y_;
    std::vector<float> probabilities_, grid_, value_;
    std::vector<double> exact_;  // (Hm + 2, Wm + 2), filled when a pixel asks
    std::vector<uint8_t> side_;
};

PixelBox paste_box(const Box& box, const MaskGrids& masks, const Shape& shape) {
    if (!is_finite(box) || !(box.x2 > box.x1) || !(box.y2 > box.y1)) return {0, 0, 0, 0};
    const Interval x = reachable_pixels(box.x1, box.x2, masks.width, shape.width);
    const Interval y = reachable_pixels(box.y1, box.y2, masks.height, shape.height);
    if (x.begin >= x.end || y.begin >= y.end) return {0, 0, 0, 0};
    return {static_cast<int32_t>(x.begin), static_cast<int32_t>(y.begin), static_cast<int32_t>(x.end), static_cast<int32_t>(y.end)};
}

}  // namespace

std::vector<PixelBox> paste_boxes(const MaskGrids& masks, const Shape& shape) {
    std::vector<PixelBox> boxes;
    for (int64_t n = 0; n < masks.count; ++n) boxes.push_back(paste_box(masks.boxes[n], masks, shape));
    return boxes;
}

void paste_crops(const MaskGrids& masks, const std::vector<PixelBox>& boxes, const std::vector<int64_t>& offsets, double threshold,
                 uint8_t* data) {
    parallel_for(masks.count, 1, [&](int64_t begin, int64_t end) {
        PastedMask mask(Lines::rows);
        for (int64_t n = begin; n < end; ++n) {
            if (boxes[n].area() == 0) continue;
            mask.set(masks, n, boxes[n], threshold);
            uint8_t* row = data + offsets[n];
            for (int64_t y = 0; y < boxes[n].height(); ++y, row += boxes[n].width())
                mask.walk(y, [row](int32_t from, int32_t to) { std::fill(row + from, row + to, uint8_t{1}); });
        }
    });
}

std::vector<std::string> paste_rle(const MaskGrids& masks, const Shape& shape, double threshold) {
    check_rle_shape(shape);
    std::vector<std::string> texts(static_cast<size_t>(masks.count));
    parallel_for(masks.count, 1, [&](int64_t begin, int64_t end) {
        PastedMask mask(Lines::columns);
        RunWriter runs;
        for (int64_t n = begin; n < end; ++n) {
            const PixelBox box = paste_box(masks.boxes[n], masks, shape);
            if (box.area() > 0) mask.set(masks, n, box, threshold);
            for (int64_t x = 0; x < box.width(); ++x) {
                const int64_t origin = (box.x1 + x) * shape.height + box.y1;
                mask.walk(x, [&runs, origin](int32_t from, int32_t to) { runs.add(origin + from, origin + to); });
            }
            const std::vector<uint32_t> counts = runs.take_counts(shape.height * shape.width);
            texts[n] = rle_string(counts.data(), counts.size());
        }
    });
    return texts;
}

}  // namespace kerf
