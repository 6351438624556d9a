#include "boundary_band.h"

#include <algorithm>

#include "common.h"
#include "thread_pool.h"

namespace kerf {
namespace {

KERF_CLONES void add_row(const uint8_t* row, int64_t count, uint16_t* sums) {
    for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<uint16_t>(sums[i] + (row[i] != 0));
}

KERF_CLONES void subtract_row(const uint8_t* row, int64_t count, uint16_t* sums) {
    for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<uint16_t>(sums[i] - (row[i] != 0));
}

// totals[i] = sums[i] + .. + sums[i + side - 1].
KERF_CLONES void sum_across(const uint16_t* sums, int64_t side, int64_t count, uint16_t* totals) {
    std::fill_n(totals, count, uint16_t{0});
    for (int64_t k = 0; k < side; ++k)
        for (int64_t i = 0; i < count; ++i) totals[i] = static_cast<uint16_t>(totals[i] + sums[i + k]);
}

// Others are the window's pixels of the other label: background for foreground and the other way round.
KERF_CLONES void mark(const uint16_t* totals, const uint8_t* labels, uint16_t area, uint16_t most_others, int64_t count, uint8_t* band) {
    for (int64_t i = 0; i < count; ++i) {
        const uint16_t others = labels[i] != 0 ? static_cast<uint16_t>(area - totals[i]) : totals[i];
        band[i] = others > most_others;
    }
}

// Column sums run down the mask, so that a row costs one addition and one subtraction whatever the width.
void band_of(const PixelBox& mask, const uint8_t* labels, const BandRule& rule, const PixelBox& box, uint8_t* band) {
    const int64_t w = rule.width, side = 2 * w + 1, inner = mask.width();
    std::vector<uint16_t> sums(static_cast<size_t>(box.width() + 2 * w), 0), totals(static_cast<size_t>(box.width()));
    std::vector<uint8_t> row(static_cast<size_t>(box.width()), 0);
    uint16_t* inner_sums = sums.data() + (mask.x1 - box.x1) + w;
    const auto labels_of = [&](int64_t y) { return labels + (y - mask.y1) * inner; };
    for (int64_t y = mask.y1; y < std::min<int64_t>(box.y1 + w, mask.y2); ++y) add_row(labels_of(y), inner, inner_sums);
    for (int64_t y = box.y1; y < box.y2; ++y, band += box.width()) {
        if (y + w >= mask.y1 && y + w < mask.y2) add_row(labels_of(y + w), inner, inner_sums);
        if (y > box.y1 && y - w - 1 >= mask.y1 && y - w - 1 < mask.y2) subtract_row(labels_of(y - w - 1), inner, inner_sums);
        sum_across(sums.data(), side, box.width(), totals.data());
        if (y >= mask.y1 && y < mask.y2)
            std::copy_n(labels_of(y), inner, row.data() + (mask.x1 - box.x1));
        else
            std::fill(row.begin(), row.end(), uint8_t{0});
        mark(totals.data(), row.data(), static_cast<uint16_t>(side * side), static_cast<uint16_t>(rule.most_others), box.width(), band);
    }
}

}  // namespace

std::vector<PixelBox> band_boxes(const CropsView& masks, const Shape& shape, int64_t width) {
    std::vector<PixelBox> boxes;
    for (int64_t n = 0; n < masks.count; ++n) {
        const PixelBox& b = masks.boxes[n];
        const auto low = [width](int32_t v) { return static_cast<int32_t>(std::max<int64_t>(v - width, 0)); };
        const auto high = [width](int32_t v, int64_t limit) { return static_cast<int32_t>(std::min(v + width, limit)); };
        boxes.push_back(b.area() == 0 ? PixelBox{0, 0, 0, 0} : PixelBox{low(b.x1), low(b.y1), high(b.x2, shape.width), high(b.y2, shape.height)});
    }
    return boxes;
}

void boundary_band(const CropsView& masks, const BandRule& rule, const std::vector<PixelBox>& boxes, const std::vector<int64_t>& offsets,
                   uint8_t* data) {
    parallel_for(masks.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n)
            if (boxes[n].area() > 0) band_of(masks.boxes[n], masks.data + masks.offsets[n], rule, boxes[n], data + offsets[n]);
    });
}

}  // namespace kerf
