#include "patches.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_set>

#include "common.h"
#include "thread_pool.h"

namespace kerf {
namespace {

constexpr int kLevels = 4;  // min(foreground, background) of nine pixels

struct Pixel {
    int32_t x, y;
};

// balance[i] = min(s, total - s), s = sums[i] + sums[i + 1] + sums[i + 2], total = rows * columns[i].
KERF_CLONES void balance_row(const uint8_t* sums, const uint8_t* columns, uint8_t rows, int64_t count,
                             uint8_t* __restrict balance) {
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t inside = static_cast<uint8_t>(sums[i] + sums[i + 1] + sums[i + 2]);
        const uint8_t outside = static_cast<uint8_t>(rows * columns[i] - inside);
        balance[i] = inside < outside ? inside : outside;
    }
}

KERF_CLONES void sum_rows(const uint8_t* above, const uint8_t* row, const uint8_t* below, int64_t count,
                          uint8_t* __restrict sums) {
    for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<uint8_t>((above[i] != 0) + (row[i] != 0) + (below[i] != 0));
}

KERF_CLONES int64_t count_foreground(const uint8_t* row, int64_t count) {
    int64_t sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += row[i] != 0;
    return sum;
}

struct MaskView {
    PixelBox box;
    const uint8_t* data;

    const uint8_t* row(int64_t y) const { return data + (y - box.y1) * box.width(); }
};

// The boundary pixels of one mask by balance, each list in row-major order: rows are looked at one after the other inside the crop and one
// pixel around it, so that only the pixels found are kept.
class BoundaryPixels {
public:
    BoundaryPixels(const MaskView& mask, const Shape& shape, bool frame)
        : mask_(mask), shape_(shape), frame_(frame), width_(mask.box.width() + 2), sums_(static_cast<size_t>(width_ + 2), 0),
          empty_(static_cast<size_t>(mask.box.width()), 0), columns_(static_cast<size_t>(width_), 3),
          balance_(static_cast<size_t>((width_ + 7) / 8 * 8), 0) {
        if (!frame) {
            for (int64_t i = 0; i < width_; ++i) {
                const int64_t x = mask.box.x1 - 1 + i;
                columns_[i] = static_cast<uint8_t>(std::min(x + 1, shape.width - 1) - std::max<int64_t>(x - 1, 0) + 1);
            }
        }
        const int64_t last = std::min<int64_t>(mask.box.y2 + 1, shape.height);
        for (int64_t y = std::max<int64_t>(mask.box.y1 - 1, 0); y < last; ++y) find_row(y);
    }

    // Level 1 to 4.
    const std::vector<Pixel>& level(int balance) const { return found_[balance - 1]; }

private:
    const uint8_t* row_or_empty(int64_t y) const { return y < mask_.box.y1 || y >= mask_.box.y2 ? empty_.data() : mask_.row(y); }

    void find_row(int64_t y) {
        sum_rows(row_or_empty(y - 1), row_or_empty(y), row_or_empty(y + 1), mask_.box.width(), sums_.data() + 2);
        const int64_t rows = frame_ ? 3 : std::min(y + 1, shape_.height - 1) - std::max<int64_t>(y - 1, 0) + 1;
        balance_row(sums_.data(), columns_.data(), static_cast<uint8_t>(rows), width_, balance_.data());
        if (mask_.box.x1 == 0) balance_[0] = 0;  // left and right of the picture
        if (mask_.box.x2 == shape_.width) balance_[width_ - 1] = 0;
        for (int64_t i = 0; i < width_; i += 8) {
            uint64_t eight;
            std::memcpy(&eight, balance_.data() + i, sizeof eight);
            if (eight == 0) continue;
            for (int64_t k = i; k < i + 8; ++k)
                if (balance_[k]) found_[balance_[k] - 1].push_back({static_cast<int32_t>(mask_.box.x1 - 1 + k), static_cast<int32_t>(y)});
        }
    }

    const MaskView& mask_;
    const Shape& shape_;
    bool frame_;
    int64_t width_;                      // of the crop and one pixel on either side
    std::vector<uint8_t> sums_, empty_;  // sums_ has a zero more on either side
    std::vector<uint8_t> columns_;       // pixels of the picture among the three around each column
    std::vector<uint8_t> balance_;
    std::vector<Pixel> found_[kLevels];
};

// When two squares of one size suppress each other, in whole numbers: the overlap that float32 finds too large, and how far that reaches.
struct Suppression {
    int64_t size, least_shared, reach;  // reach < 0: none ever does

    Suppression(int64_t side, float threshold) : size(side), least_shared(side * side + 1), reach(-1) {
        int64_t low = 1, high = side * side + 1;  // the test is monotonic in the overlap
        while (low < high) {
            const int64_t shared = (low + high) / 2;
            if (static_cast<float>(shared) > threshold * static_cast<float>(2 * side * side - shared))
                high = shared;
            else
                low = shared + 1;
        }
        least_shared = low;
        if (least_shared <= side * side) reach = side - (least_shared + side - 1) / side;
    }

    bool holds(const Pixel& a, const Pixel& b) const {
        const int64_t dx = std::abs(a.x - b.x), dy = std::abs(a.y - b.y);
        return dx <= reach && dy <= reach && (size - dx) * (size - dy) >= least_shared;
    }
};

// Kept centres in cells at least as wide as suppression reaches, so that nine cells hold all that can suppress a candidate.
class KeptCentres {
public:
    KeptCentres(const PixelBox& area, const Suppression& rule) : rule_(rule), area_(area) {
        while ((int64_t{1} << shift_) < rule.reach + 1) ++shift_;
        columns_ = (area.width() >> shift_) + 3;  // one empty cell all around
        if (rule.reach >= 0) first_.assign(static_cast<size_t>(columns_ * ((area.height() >> shift_) + 3)), -1);
    }

    bool offer(const Pixel& pixel) {
        if (rule_.reach < 0) return true;
        if (last_ >= 0 && rule_.holds(pixel, kept_[last_])) return false;  // what suppressed a neighbour most likely suppresses this too
        const int64_t cell = (((pixel.y - area_.y1) >> shift_) + 1) * columns_ + ((pixel.x - area_.x1) >> shift_) + 1;
        for (const int64_t row : {cell - columns_, cell, cell + columns_})
            for (int64_t c = row - 1; c <= row + 1; ++c)
                for (int32_t k = first_[c]; k >= 0; k = next_[k])
                    if (rule_.holds(pixel, kept_[k])) {
                        last_ = k;
                        return false;
                    }
        next_.push_back(first_[cell]);
        first_[cell] = static_cast<int32_t>(kept_.size());
        kept_.push_back(pixel);
        return true;
    }

private:
    const Suppression& rule_;
    PixelBox area_;
    int shift_ = 0;
    int64_t columns_;
    int32_t last_ = -1;
    std::vector<int32_t> first_, next_;
    std::vector<Pixel> kept_;
};

int32_t moved_inside(int64_t begin, int64_t size, int64_t extent) {
    return static_cast<int32_t>(std::max<int64_t>(std::min(begin, extent - size), 0));
}

PixelBox square(int32_t x, int32_t y, int64_t size) {
    return {x, y, static_cast<int32_t>(x + size), static_cast<int32_t>(y + size)};
}

std::vector<Patch> dense_patches(const MaskView& mask, const Shape& shape, const PatchRule& rule, const Suppression& suppression) {
    const BoundaryPixels pixels(mask, shape, rule.frame);
    KeptCentres kept({mask.box.x1 - 1, mask.box.y1 - 1, mask.box.x2 + 1, mask.box.y2 + 1}, suppression);
    std::unordered_set<int64_t> places;
    std::vector<Patch> patches;
    for (int balance = kLevels; balance > 0; --balance)
        for (const Pixel& pixel : pixels.level(balance)) {
            if (!kept.offer(pixel)) continue;
            const int32_t x = moved_inside(pixel.x - rule.size / 2, rule.size, shape.width);
            const int32_t y = moved_inside(pixel.y - rule.size / 2, rule.size, shape.height);
            if (places.insert(y * shape.width + x).second)
                patches.push_back({square(x, y, rule.size), static_cast<float>(balance / 4.5)});
        }
    return patches;
}

// The smaller label's part of an area, times two.
float evenness(int64_t foreground, int64_t area) {
    return static_cast<float>(2.0 * static_cast<double>(std::min(foreground, area - foreground)) / static_cast<double>(area));
}

// Cells of one axis, moved inside, that meet [low, high).
std::vector<int32_t> cells_that_meet(int64_t low, int64_t high, int64_t size, int64_t extent) {
    std::vector<int32_t> begins;
    const int64_t last = (extent - 1) / size;
    for (int64_t cell = low / size; cell <= (high - 1) / size; ++cell) begins.push_back(moved_inside(cell * size, size, extent));
    if ((high - 1) / size < last && moved_inside(last * size, size, extent) < high) begins.push_back(moved_inside(last * size, size, extent));
    return begins;
}

std::vector<Patch> grid_patches(const MaskView& mask, const Shape& shape, const PatchRule& rule) {
    std::vector<Patch> patches;
    const std::vector<int32_t> lefts = cells_that_meet(mask.box.x1, mask.box.x2, rule.size, shape.width);
    for (const int32_t top : cells_that_meet(mask.box.y1, mask.box.y2, rule.size, shape.height))
        for (const int32_t left : lefts) {
            const PixelBox cell = square(left, top, rule.size);
            const int64_t x1 = std::max(cell.x1, mask.box.x1), x2 = std::min(cell.x2, mask.box.x2);
            int64_t foreground = 0;
            for (int64_t y = std::max(cell.y1, mask.box.y1); y < std::min(cell.y2, mask.box.y2); ++y)
                foreground += count_foreground(mask.row(y) + x1 - mask.box.x1, std::max<int64_t>(x2 - x1, 0));
            const int64_t area = (std::min<int64_t>(cell.x2, shape.width) - left) * (std::min<int64_t>(cell.y2, shape.height) - top);
            if (foreground > 0 && foreground < area) patches.push_back({cell, evenness(foreground, area)});
        }
    return patches;
}

std::vector<Patch> instance_patch(const MaskView& mask, const Shape& shape, const PatchRule& rule) {
    const PixelBox tight = tight_boxes(mask.data, 1, {mask.box.height(), mask.box.width()}).front();
    if (tight.area() == 0) return {};
    const auto grown = [&rule](int64_t begin, int64_t end, int64_t extent) {
        const int64_t more = static_cast<int64_t>(static_cast<double>(end - begin) * rule.enlarge + 0.5);
        return std::pair<int32_t, int32_t>(std::max<int64_t>(begin - more, 0), std::min(end + more, extent));
    };
    const auto [x1, x2] = grown(mask.box.x1 + tight.x1, mask.box.x1 + tight.x2, shape.width);
    const auto [y1, y2] = grown(mask.box.y1 + tight.y1, mask.box.y1 + tight.y2, shape.height);
    const PixelBox box{x1, y1, x2, y2};
    return {{box, evenness(count_foreground(mask.data, mask.box.area()), box.area())}};
}

}  // namespace

std::vector<std::vector<Patch>> boundary_patches(const CropsView& masks, const Shape& shape, const PatchRule& rule) {
    std::vector<std::vector<Patch>> patches(static_cast<size_t>(masks.count));
    const bool too_small = std::min(shape.height, shape.width) < rule.size && !rule.pad_small;
    if (too_small && rule.scheme != PatchScheme::instance) return patches;
    const Suppression suppression(rule.size, rule.threshold);
    parallel_for(masks.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const MaskView mask{masks.boxes[n], masks.data + masks.offsets[n]};
            if (mask.box.area() == 0) continue;
            if (rule.scheme == PatchScheme::dense) patches[n] = dense_patches(mask, shape, rule, suppression);
            if (rule.scheme == PatchScheme::grid) patches[n] = grid_patches(mask, shape, rule);
            if (rule.scheme == PatchScheme::instance) patches[n] = instance_patch(mask, shape, rule);
        }
    });
    return patches;
}

void check_patches(const PatchesView& patches) {
    for (int64_t i = 0; i < patches.count; ++i) {
        const PixelBox& box = patches.boxes[i];
        const bool sound = box.x1 >= 0 && box.y1 >= 0 && box.x1 < patches.shape.width && box.y1 < patches.shape.height && box.x2 > box.x1 &&
                           box.y2 > box.y1;
        require(sound, "boxes[" + std::to_string(i) + "]: expected x1 < x2 and y1 < y2, beginning inside " +
                           std::to_string(patches.shape.width) + " x " + std::to_string(patches.shape.height) + " pixels, got (" +
                           std::to_string(box.x1) + ", " + std::to_string(box.y1) + ", " + std::to_string(box.x2) + ", " +
                           std::to_string(box.y2) + ")");
        require(patches.instance[i] >= 0,
                "instance[" + std::to_string(i) + "]: expected at least 0, got " + std::to_string(patches.instance[i]));
    }
}

void check_instances(const PatchesView& patches, int64_t count, const char* what) {
    for (int64_t i = 0; i < patches.count; ++i)
        require(patches.instance[i] < count, "instance[" + std::to_string(i) + "]: expected an index of " + std::to_string(count) + " " + what +
                                                 ", got " + std::to_string(patches.instance[i]));
}

std::vector<std::vector<int64_t>> patches_by_instance(const PatchesView& patches, int64_t count) {
    std::vector<std::vector<int64_t>> positions(static_cast<size_t>(count));
    for (int64_t i = 0; i < patches.count; ++i) positions[patches.instance[i]].push_back(i);
    return positions;
}

}  // namespace kerf
