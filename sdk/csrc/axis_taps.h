// One axis of a RoIAlign: which cells feed each bin, with which weight. The two axes are independent, so a bin's value is
// sum over rows and columns of wy * wx * feature, whatever the number of samples.
#pragma once

#include <cstdint>
#include <vector>

namespace kerf {

// The interval of a box on one axis, in cells of its level.
struct AxisSpan {
    double start;     // where the rule is aligned, its half cell is already subtracted
    double extent;    // > 0
    int64_t size;     // cells of the level, >= 1
    int64_t bins;     // >= 1
    int64_t samples;  // per bin; 0 = ceil(extent / bins)
};

class AxisTaps {
public:
    void build(const AxisSpan& span);

    // Taps of bin p: indices [begin(p), begin(p + 1)) of the lists below, cells ascending.
    int32_t begin(int64_t p) const { return begin_[p]; }
    int32_t count(int64_t p) const { return begin_[p + 1] - begin_[p]; }
    const std::vector<int32_t>& cells() const { return cells_; }
    const std::vector<float>& weights() const { return weights_; }  // the mean over samples is folded in

private:
    void build_bin(const AxisSpan& span, double n, double bin_start, double bin_extent);
    void add(int64_t cell, double weight);

    std::vector<int32_t> begin_, cells_;
    std::vector<float> weights_;
};

// Cells that build() can touch, first to last; empty when first > last. Cheap, and never too few.
struct CellRange {
    int64_t first, last;
};
CellRange touched_cells(const AxisSpan& span);

}  // namespace kerf
