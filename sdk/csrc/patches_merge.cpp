// Refined patches back into masks, and how unsure a mask head was in each patch.
#include <algorithm>
#include <cmath>
#include <vector>

#include "arithmetic.h"
#include "common.h"
#include "patches.h"
#include "thread_pool.h"

namespace kerf {
namespace {

// Where the pixels of a patch fall on its grid of values, along one axis.
struct GridPosition {
    int32_t first, second;
    float fraction;  // of the second
};

GridPosition grid_position(int64_t pixel, int64_t extent, int64_t padding, int64_t size) {
    const double scale = static_cast<double>(size) / static_cast<double>(extent + 2 * padding);
    const double centre = (static_cast<double>(pixel + padding) + 0.5) * scale - 0.5;
    const double inside = std::clamp(centre, 0.0, static_cast<double>(size - 1));
    const int64_t first = static_cast<int64_t>(inside);
    return {static_cast<int32_t>(first), static_cast<int32_t>(std::min(first + 1, size - 1)),
            static_cast<float>(inside - static_cast<double>(first))};
}

KERF_CLONES void blend(const float* upper, const float* lower, float fraction, int64_t count, float* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = upper[i] + fraction * (lower[i] - upper[i]);
}

// Half as many values: bilinear resizing with half-pixel centres is the mean of two then.
KERF_CLONES void halve(const float* values, int64_t count, float* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = values[2 * i] + 0.5f * (values[2 * i + 1] - values[2 * i]);
}

KERF_CLONES void sigmoids(float* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) values[i] = 1.0f / (1.0f + fast_exp(-values[i]));
}

KERF_CLONES void add_values(const float* values, int64_t count, double* __restrict sums, float* __restrict covers) {
    for (int64_t i = 0; i < count; ++i) {
        sums[i] += static_cast<double>(values[i]);
        covers[i] += 1.0f;
    }
}

// The means of one stretch of a row, and the labels they give; a pixel whose mean is not a number keeps its label.
KERF_CLONES void take_means(const double* sums, const float* covers, int64_t count, float threshold, float* __restrict means,
                            uint8_t* __restrict labels) {
    for (int64_t i = 0; i < count; ++i) means[i] = static_cast<float>(sums[i] / static_cast<double>(covers[i]));
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t label = means[i] > threshold ? 1 : 0;
        labels[i] = means[i] == means[i] ? label : labels[i];
    }
}

KERF_CLONES void copy_labels(const uint8_t* from, int64_t count, uint8_t* __restrict to) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i] != 0;
}

PixelBox inside(const PixelBox& box, const Shape& shape) {
    return {box.x1, box.y1, static_cast<int32_t>(std::min<int64_t>(box.x2, shape.width)),
            static_cast<int32_t>(std::min<int64_t>(box.y2, shape.height))};
}

// Refines one mask after the other: a row of the crop at a time, adding the patches that cross it in the order they come in.
class PatchMerger {
public:
    PatchMerger(const PatchesView& patches, const PatchValues& values, float threshold)
        : patches_(patches), values_(values), threshold_(threshold), mixed_(static_cast<size_t>(values.size)) {}

    // labels, and means unless null: the crop `box` with the mask's own labels in it.
    void refine(const std::vector<int64_t>& positions, const PixelBox& box, uint8_t* labels, float* means) {
        box_ = box;
        sums_.assign(static_cast<size_t>(box.width()), 0.0);
        covers_.assign(static_cast<size_t>(box.width()), 0.0f);
        by_top_ = positions;
        std::stable_sort(by_top_.begin(), by_top_.end(), [this](int64_t a, int64_t b) { return patches_.boxes[a].y1 < patches_.boxes[b].y1; });
        active_.clear();
        stretches_.clear();
        size_t next = 0;
        for (int64_t y = box.y1; y < box.y2; ++y, labels += box.width()) {
            const size_t before = active_.size(), begun = next;
            active_.erase(std::remove_if(active_.begin(), active_.end(), [&](int64_t i) { return patches_.boxes[i].y2 <= y; }), active_.end());
            const bool ended = active_.size() < before;
            for (; next < by_top_.size() && patches_.boxes[by_top_[next]].y1 == y; ++next)
                active_.insert(std::upper_bound(active_.begin(), active_.end(), by_top_[next]), by_top_[next]);
            if (ended || next > begun) find_stretches();
            for (const int64_t i : active_) add_row(i, y);
            float* row_means = means ? means + (y - box.y1) * box.width() : nullptr;
            for (const Stretch& s : stretches_) finish(s, labels, row_means);
        }
    }

private:
    struct Stretch {
        int64_t begin, end;  // in the crop's row
    };
    Stretch stretch(int64_t i) const {
        const PixelBox cut = inside(patches_.boxes[i], patches_.shape);
        return {cut.x1 - box_.x1, cut.x2 - box_.x1};
    }

    // What the active patches cover, without overlaps.
    void find_stretches() {
        stretches_.clear();
        for (const int64_t i : active_) stretches_.push_back(stretch(i));
        std::sort(stretches_.begin(), stretches_.end(), [](const Stretch& a, const Stretch& b) { return a.begin < b.begin; });
        size_t joined = 0;
        for (size_t k = 1; k < stretches_.size(); ++k) {
            if (stretches_[k].begin <= stretches_[joined].end)
                stretches_[joined].end = std::max(stretches_[joined].end, stretches_[k].end);
            else
                stretches_[++joined] = stretches_[k];
        }
        if (!stretches_.empty()) stretches_.resize(joined + 1);
    }

    void add_row(int64_t i, int64_t y) {
        const PixelBox& patch = patches_.boxes[i];
        const Stretch s = stretch(i);
        const int64_t count = s.end - s.begin, size = values_.size;
        if (row_.size() < static_cast<size_t>(count)) row_.resize(static_cast<size_t>(count));
        const GridPosition row = grid_position(y - patch.y1, patch.height(), patches_.padding, size);
        const float* grid = values_.data + i * size * size;
        blend(grid + row.first * size, grid + row.second * size, row.fraction, size, mixed_.data());
        if (patches_.padding == 0 && size == 2 * patch.width())
            halve(mixed_.data(), count, row_.data());
        else
            resize_row(patch.width(), count);
        if (values_.logits) sigmoids(row_.data(), count);
        add_values(row_.data(), count, sums_.data() + s.begin, covers_.data() + s.begin);
    }

    void resize_row(int64_t width, int64_t count) {
        set_columns(width, count);
        for (int64_t x = 0; x < count; ++x) {
            const float a = mixed_[columns_[x].first], b = mixed_[columns_[x].second];
            row_[x] = a + columns_[x].fraction * (b - a);
        }
    }

    void finish(const Stretch& s, uint8_t* labels, float* means) {
        const int64_t count = s.end - s.begin;
        if (row_.size() < static_cast<size_t>(count)) row_.resize(static_cast<size_t>(count));
        double* sums = sums_.data() + s.begin;
        float* covers = covers_.data() + s.begin;
        take_means(sums, covers, count, threshold_, means ? means + s.begin : row_.data(), labels + s.begin);
        std::fill_n(sums, count, 0.0);
        std::fill_n(covers, count, 0.0f);
    }

    // Patches mostly share one size, so that the positions of the last one serve.
    void set_columns(int64_t width, int64_t count) {
        if (width == columns_of_ && columns_.size() >= static_cast<size_t>(count)) return;
        columns_.clear();
        for (int64_t x = 0; x < count; ++x) columns_.push_back(grid_position(x, width, patches_.padding, values_.size));
        columns_of_ = width;
    }

    const PatchesView& patches_;
    const PatchValues& values_;
    float threshold_;
    PixelBox box_{};
    int64_t columns_of_ = -1;
    std::vector<GridPosition> columns_;
    std::vector<float> mixed_, row_, covers_;
    std::vector<double> sums_;
    std::vector<int64_t> by_top_, active_;
    std::vector<Stretch> stretches_;
};

// The mask's labels in its new box.
void place_labels(const CropsView& masks, int64_t n, const PixelBox& box, uint8_t* labels) {
    const PixelBox& old = masks.boxes[n];
    std::fill_n(labels, box.area(), uint8_t{0});
    if (old.area() == 0) return;
    const uint8_t* from = masks.data + masks.offsets[n];
    uint8_t* to = labels + (old.y1 - box.y1) * box.width() + old.x1 - box.x1;
    for (int64_t y = 0; y < old.height(); ++y, from += old.width(), to += box.width()) copy_labels(from, old.width(), to);
}

}  // namespace

std::vector<PixelBox> merged_boxes(const CropsView& masks, const PatchesView& patches) {
    std::vector<PixelBox> boxes(masks.boxes, masks.boxes + masks.count);
    for (int64_t i = 0; i < patches.count; ++i) {
        PixelBox& box = boxes[patches.instance[i]];
        const PixelBox patch = inside(patches.boxes[i], patches.shape);
        box = box.area() == 0 ? patch
                              : PixelBox{std::min(box.x1, patch.x1), std::min(box.y1, patch.y1), std::max(box.x2, patch.x2),
                                         std::max(box.y2, patch.y2)};
    }
    return boxes;
}

void merge_patches(const CropsView& masks, const PatchesView& patches, const PatchValues& values, float threshold,
                   const std::vector<PixelBox>& boxes, const std::vector<int64_t>& offsets, uint8_t* data, float* means) {
    const std::vector<std::vector<int64_t>> positions = patches_by_instance(patches, masks.count);
    parallel_for(masks.count, 1, [&](int64_t begin, int64_t end) {
        PatchMerger merger(patches, values, threshold);
        for (int64_t n = begin; n < end; ++n) {
            uint8_t* labels = data + offsets[n];
            float* mean = means ? means + offsets[n] : nullptr;
            place_labels(masks, n, boxes[n], labels);
            if (mean) std::copy_n(labels, boxes[n].area(), mean);
            if (!positions[n].empty()) merger.refine(positions[n], boxes[n], labels, mean);
        }
    });
}

namespace {

constexpr int64_t kPoints = 16;  // a side; of a patch that are asked how sure the mask head is

// The probabilities of one mask head's grid with a ring of zeros.
class ProbabilityGrid {
public:
    ProbabilityGrid(const MaskGrids& masks, int64_t n)
        : box_(masks.boxes[n]), height_(masks.height), width_(masks.width),
          values_(static_cast<size_t>((height_ + 2) * (width_ + 2)), 0.0f) {
        for (int64_t y = 0; y < height_; ++y) {
            float* row = values_.data() + (y + 1) * (width_ + 2) + 1;
            std::copy_n(masks.logits + (n * height_ + y) * width_, width_, row);
            sigmoids(row, width_);
        }
    }

    float at(double x, double y) const {
        const double gx = (x - box_.x1) / (static_cast<double>(box_.x2) - box_.x1) * static_cast<double>(width_) - 0.5;
        const double gy = (y - box_.y1) / (static_cast<double>(box_.y2) - box_.y1) * static_cast<double>(height_) - 0.5;
        if (!(gx > -1.0 && gx < static_cast<double>(width_) && gy > -1.0 && gy < static_cast<double>(height_))) return 0.0f;
        const double left = std::floor(gx), top = std::floor(gy);
        const float fx = static_cast<float>(gx - left), fy = static_cast<float>(gy - top);
        const float* upper = values_.data() + (static_cast<int64_t>(top) + 1) * (width_ + 2) + static_cast<int64_t>(left) + 1;
        const float* lower = upper + width_ + 2;
        const float a = upper[0] + fx * (upper[1] - upper[0]), b = lower[0] + fx * (lower[1] - lower[0]);
        return a + fy * (b - a);
    }

    float mean_uncertainty(const PixelBox& patch) const {
        float sum = 0.0f;
        for (int64_t i = 0; i < kPoints; ++i)
            for (int64_t j = 0; j < kPoints; ++j) {
                const double x = patch.x1 + (static_cast<double>(j) + 0.5) / kPoints * static_cast<double>(patch.width());
                const double y = patch.y1 + (static_cast<double>(i) + 0.5) / kPoints * static_cast<double>(patch.height());
                sum += 1.0f - std::abs(2.0f * at(x, y) - 1.0f);
            }
        return sum / (kPoints * kPoints);
    }

private:
    Box box_;
    int64_t height_, width_;
    std::vector<float> values_;  // (Hm + 2, Wm + 2)
};

}  // namespace

void patch_uncertainty(const PatchesView& patches, const MaskGrids& masks, float* uncertainty) {
    const std::vector<std::vector<int64_t>> positions = patches_by_instance(patches, masks.count);
    parallel_for(masks.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            if (positions[n].empty()) continue;
            const Box& box = masks.boxes[n];
            const bool covers = is_finite(box) && box.x2 > box.x1 && box.y2 > box.y1;
            const ProbabilityGrid grid(masks, n);
            for (const int64_t i : positions[n]) uncertainty[i] = covers ? grid.mean_uncertainty(patches.boxes[i]) : 0.0f;
        }
    });
}

}  // namespace kerf
