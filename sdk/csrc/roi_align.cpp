#include "roi_align.h"

#include <algorithm>
#include <cmath>

#include "common.h"
#include "thread_pool.h"
#include "vec.h"

namespace kerf {
namespace {

// A box on its level, in cells.
struct Roi {
    int64_t index;  // in the caller's order
    int64_t level, image;
    AxisSpan y, x;
    uint64_t place;  // sort key: boxes that share cells come one after the other
};

// FPN's rule (Lin et al. 2017, eq. 1): a box of 224 pixels belongs to the third level.
int64_t level_by_size(const Box& box, int64_t levels) {
    const double area = (static_cast<double>(box.x2) - box.x1) * (static_cast<double>(box.y2) - box.y1);
    const double level = std::floor(std::log2(std::sqrt(area) / 56.0 + 1e-6));
    return static_cast<int64_t>(std::clamp(level, 0.0, static_cast<double>(levels - 1)));
}

AxisSpan axis_span(float low, float high, double stride, int64_t size, const PoolRule& rule) {
    const double extent = (static_cast<double>(high) - low) / stride;
    if (!rule.aligned) return {low / stride, std::max(extent, 1.0), size, rule.output_size, rule.sampling_ratio};
    return {low / stride - 0.5, extent, size, rule.output_size, rule.sampling_ratio};
}

// Level, image, then strips of 16 rows walked from left to right: neighbours' cells are still in the cache.
uint64_t place_of(int64_t level, int64_t image, const AxisSpan& y, const AxisSpan& x) {
    const auto cell = [](const AxisSpan& s) {
        return static_cast<uint64_t>(std::clamp(s.start + 0.5 * s.extent, 0.0, static_cast<double>(s.size)));
    };
    return static_cast<uint64_t>(level) << 60 | static_cast<uint64_t>(image) << 40 | cell(y) / 16 << 20 | cell(x);
}

bool is_poolable(const Box& box) { return is_finite(box) && box.x2 > box.x1 && box.y2 > box.y1; }

// Weighted sum of N rows, added to `to` or in its place.
template <int N, bool Add>
KERF_INLINE void sum_rows(const float* const* rows, const float* weights, int64_t length, float* to) {
    // Copies, because the stores below could change the originals as far as the compiler knows: these stay in registers.
    const float* row[N];
    float weight[N];
    std::copy_n(rows, N, row);
    std::copy_n(weights, N, weight);
    for (int64_t i = 0; i < length; i += 16) {
        f32x16 sum = weight[0] * load<f32x16>(row[0] + i);
        for (int k = 1; k < N; ++k) sum += weight[k] * load<f32x16>(row[k] + i);
        if (Add) sum += load<f32x16>(to + i);
        store(to + i, sum);
    }
}

template <bool Add>
KERF_INLINE void sum_up_to_four(const float* const* rows, const float* weights, int64_t count, int64_t length, float* to) {
    switch (count) {
        case 1: return sum_rows<1, Add>(rows, weights, length, to);
        case 2: return sum_rows<2, Add>(rows, weights, length, to);
        case 3: return sum_rows<3, Add>(rows, weights, length, to);
        default: return sum_rows<4, Add>(rows, weights, length, to);
    }
}

// to = sum of weights[k] * rows[k] over `length` floats, a multiple of 16. A function of its own: inlined, its loops would run out of registers.
KERF_CLONES void weighted_sum(const float* const* rows, const float* weights, int64_t count, int64_t length, float* to) {
    if (count == 0) std::fill(to, to + length, 0.0f);
    if (count > 0) sum_up_to_four<false>(rows, weights, count, length, to);
    for (int64_t done = 4; done < count; done += 4) sum_up_to_four<true>(rows + done, weights + done, count - done, length, to);
}

// Buffers of one thread, reused from box to box.
struct Workspace {
    AxisTaps y, x;
    HugeBuffer columns;                 // (touched columns, padded C): one bin row summed over the picture's rows
    HugeBuffer bins;                    // (P, P, padded C)
    std::vector<const float*> rows;     // of the taps being summed
    std::vector<int32_t> column_place;  // of every tap of x, in `columns`
    std::vector<int32_t> touched;       // columns, ascending
};

void plan_columns(Workspace& work) {
    work.touched = work.x.cells();
    std::sort(work.touched.begin(), work.touched.end());
    work.touched.erase(std::unique(work.touched.begin(), work.touched.end()), work.touched.end());
    work.column_place.clear();
    for (const int32_t cell : work.x.cells())
        work.column_place.push_back(
            static_cast<int32_t>(std::lower_bound(work.touched.begin(), work.touched.end(), cell) - work.touched.begin()));
}

struct BinGrid {
    const float* cells;  // (H, W, padded C) of one image
    int64_t width, padded, bins;

    // Bins lie a cache line further apart than their channels need: at 1024 bytes they would all fall into four sets of the first-level cache.
    int64_t bin_stride() const { return padded + 16; }
};

// Sums the rows of bin row p into work.columns, one stretch of neighbouring columns at a time.
void sum_bin_row(const BinGrid& grid, int64_t p, Workspace& work) {
    const int64_t taps = work.y.count(p), touched = static_cast<int64_t>(work.touched.size());
    for (int64_t begin = 0, end; begin < touched; begin = end) {
        end = begin + 1;
        while (end < touched && work.touched[end] == work.touched[end - 1] + 1) ++end;
        for (int64_t k = 0; k < taps; ++k) {
            const int64_t row = work.y.cells()[work.y.begin(p) + k];
            work.rows[k] = grid.cells + (row * grid.width + work.touched[begin]) * grid.padded;
        }
        weighted_sum(work.rows.data(), work.y.weights().data() + work.y.begin(p), taps, (end - begin) * grid.padded,
                     work.columns.data() + begin * grid.padded);
    }
}

void pool_bins(const BinGrid& grid, Workspace& work) {
    for (int64_t p = 0; p < grid.bins; ++p) {
        sum_bin_row(grid, p, work);
        for (int64_t q = 0; q < grid.bins; ++q) {
            const int64_t first = work.x.begin(q), taps = work.x.count(q);
            for (int64_t k = 0; k < taps; ++k) work.rows[k] = work.columns.data() + work.column_place[first + k] * grid.padded;
            weighted_sum(work.rows.data(), work.x.weights().data() + first, taps, grid.padded,
                         work.bins.data() + (p * grid.bins + q) * grid.bin_stride());
        }
    }
}

KERF_CLONES void write_channels_first(const float* bins, int64_t bin_stride, int64_t count, int64_t channels, float* out) {
    transpose(bins, bin_stride, count, channels, out, count);
}

// out: (C, P, P) of this box.
void pool_roi(const Roi& roi, const ChannelsLast& level, int64_t bins, Workspace& work, float* out) {
    const int64_t padded = level.padded_channels();
    work.y.build(roi.y);
    work.x.build(roi.x);
    plan_columns(work);
    work.columns.reserve(work.touched.size() * static_cast<size_t>(padded));
    const BinGrid grid{level.cells(roi.image), level.map().width, padded, bins};
    work.bins.reserve(static_cast<size_t>(bins * bins * grid.bin_stride()));
    work.rows.resize(std::max(work.x.cells().size(), work.y.cells().size()));
    pool_bins(grid, work);
    write_channels_first(work.bins.data(), grid.bin_stride(), bins * bins, level.map().channels, out);
}

}  // namespace

Pyramid::Pyramid(std::vector<double> strides) : strides_(std::move(strides)), levels_(strides_.size()) {}

void Pyramid::set(const std::vector<FeatureMap>& maps) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (size_t l = 0; l < levels_.size(); ++l) levels_[l].set(maps[l]);
}

void Pyramid::clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (ChannelsLast& level : levels_) level.set(FeatureMap{});
}

namespace {

std::vector<Roi> place_rois(const PooledBoxes& rois, const PoolRule& rule, const std::vector<double>& strides,
                            const std::vector<ChannelsLast>& levels, int64_t out_size, float* out) {
    std::vector<Roi> placed;
    placed.reserve(static_cast<size_t>(rois.count));
    for (int64_t n = 0; n < rois.count; ++n) {
        const Box& box = rois.boxes[n];
        if (!is_poolable(box)) {
            std::fill(out + n * out_size, out + (n + 1) * out_size, 0.0f);
            continue;
        }
        const int64_t level = rule.level >= 0 ? rule.level : level_by_size(box, static_cast<int64_t>(levels.size()));
        const FeatureMap& map = levels[level].map();
        const AxisSpan y = axis_span(box.y1, box.y2, strides[level], map.height, rule);
        const AxisSpan x = axis_span(box.x1, box.x2, strides[level], map.width, rule);
        placed.push_back({n, level, rois.batch[n], y, x, place_of(level, rois.batch[n], y, x)});
    }
    std::sort(placed.begin(), placed.end(), [](const Roi& a, const Roi& b) { return a.place < b.place; });
    return placed;
}

void copy_touched_cells(const std::vector<Roi>& rois, std::vector<ChannelsLast>& levels) {
    for (const Roi& roi : rois) {
        const CellRange y = touched_cells(roi.y), x = touched_cells(roi.x);
        if (y.first <= y.last && x.first <= x.last) levels[roi.level].want(roi.image, y.first, y.last, x.first, x.last);
    }
    struct Work {
        ChannelsLast* level;
        ChannelsLast::Run run;
    };
    std::vector<Work> work;
    for (ChannelsLast& level : levels)
        for (const ChannelsLast::Run& run : level.wanted()) work.push_back({&level, run});
    parallel_for(static_cast<int64_t>(work.size()), 4, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) work[i].level->copy(work[i].run);
    });
}

}  // namespace

void Pyramid::roi_align(const PooledBoxes& rois, const PoolRule& rule, int64_t channels, float* out) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const FeatureMap& finest = levels_.front().map();
    require(finest.channels == channels, "features: expected C=" + std::to_string(channels) + ", got " + std::to_string(finest.channels));
    for (int64_t n = 0; n < rois.count; ++n)
        require(rois.batch[n] >= 0 && rois.batch[n] < finest.batch, "batch[" + std::to_string(n) + "]: expected 0 to " +
                                                                        std::to_string(finest.batch - 1) + ", got " +
                                                                        std::to_string(rois.batch[n]));
    const int64_t out_size = channels * rule.output_size * rule.output_size;
    const std::vector<Roi> placed = place_rois(rois, rule, strides_, levels_, out_size, out);
    copy_touched_cells(placed, levels_);
    parallel_for(static_cast<int64_t>(placed.size()), 8, [&](int64_t begin, int64_t end) {
        Workspace work;
        for (int64_t i = begin; i < end; ++i)
            pool_roi(placed[i], levels_[placed[i].level], rule.output_size, work, out + placed[i].index * out_size);
    });
}

}  // namespace kerf
