#include "axis_taps.h"

#include <algorithm>
#include <cmath>

namespace kerf {
namespace {

// With more samples per bin than this, those that fall into any real picture weigh less than the tolerance: the bin is zero.
constexpr double kMaxSamples = 1099511627776.0;  // 2^40

double samples_per_bin(const AxisSpan& span) {
    if (span.samples > 0) return static_cast<double>(span.samples);
    return std::max(1.0, std::ceil(span.extent / static_cast<double>(span.bins)));
}

}  // namespace

CellRange touched_cells(const AxisSpan& span) {
    // Samples up to one cell outside count, and read the border cell.
    const double size = static_cast<double>(span.size);
    const double first = std::max(span.start, -1.0), last = std::min(span.start + span.extent, size);
    if (!(first <= last)) return {0, -1};
    const auto cell = [size](double u) { return static_cast<int64_t>(std::clamp(u, 0.0, size - 1.0)); };
    return {cell(first), std::min(cell(last) + 1, span.size - 1)};
}

void AxisTaps::build(const AxisSpan& span) {
    begin_.assign(1, 0);
    cells_.clear();
    weights_.clear();
    const double n = samples_per_bin(span), bin_extent = span.extent / static_cast<double>(span.bins);
    for (int64_t p = 0; p < span.bins; ++p) {
        if (n <= kMaxSamples) build_bin(span, n, span.start + static_cast<double>(p) * bin_extent, bin_extent);
        begin_.push_back(static_cast<int32_t>(cells_.size()));
    }
}

void AxisTaps::build_bin(const AxisSpan& span, double n, double bin_start, double bin_extent) {
    // The box may be far larger than the picture: visit only samples with -1 <= u <= size, and one more on either side for rounding.
    const double size = static_cast<double>(span.size), per_cell = n / bin_extent;
    const double first = std::max(0.0, std::floor((-1.0 - bin_start) * per_cell) - 1.0);
    const double last = std::min(n - 1.0, std::ceil((size - bin_start) * per_cell) + 1.0);
    for (double k = first; k <= last; k += 1.0) {
        const double u = bin_start + (k + 0.5) / n * bin_extent;
        if (u < -1.0 || u > size) continue;
        const double inside = std::clamp(u, 0.0, size - 1.0);
        const int64_t cell = static_cast<int64_t>(inside);
        const double fraction = inside - static_cast<double>(cell);
        add(cell, (1.0 - fraction) / n);
        if (fraction > 0.0) add(cell + 1, fraction / n);
    }
}

void AxisTaps::add(int64_t cell, double weight) {
    // Samples ascend, so a cell that the bin already has is its last or the one before.
    const size_t bin_begin = static_cast<size_t>(begin_.back());
    for (size_t back = 1; back <= 2 && cells_.size() - bin_begin >= back; ++back) {
        if (cells_[cells_.size() - back] != cell) continue;
        weights_[cells_.size() - back] += static_cast<float>(weight);
        return;
    }
    cells_.push_back(static_cast<int32_t>(cell));
    weights_.push_back(static_cast<float>(weight));
}

}  // namespace kerf
