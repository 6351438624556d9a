#include "crops.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "common.h"
#include "thread_pool.h"

namespace kerf {
namespace {

std::string describe(const PixelBox& b) {
    return "(" + std::to_string(b.x1) + ", " + std::to_string(b.y1) + ", " + std::to_string(b.x2) + ", " + std::to_string(b.y2) + ")";
}

bool has_foreground(const uint8_t* row, int64_t width) { return std::find_if(row, row + width, [](uint8_t v) { return v != 0; }) != row + width; }

PixelBox tight_box(const uint8_t* mask, const Shape& shape) {
    int64_t top = 0, bottom = shape.height;
    while (top < bottom && !has_foreground(mask + top * shape.width, shape.width)) ++top;
    if (top == bottom) return {0, 0, 0, 0};
    while (!has_foreground(mask + (bottom - 1) * shape.width, shape.width)) --bottom;
    int64_t left = shape.width, right = 0;
    for (int64_t y = top; y < bottom; ++y) {
        const uint8_t* row = mask + y * shape.width;
        for (int64_t x = 0; x < left; ++x)
            if (row[x]) left = x;
        for (int64_t x = shape.width; x > right; --x)
            if (row[x - 1]) right = x;
    }
    return {static_cast<int32_t>(left), static_cast<int32_t>(top), static_cast<int32_t>(right), static_cast<int32_t>(bottom)};
}

}  // namespace

void check_crops(const CropsView& crops, int64_t data_size) {
    require(crops.offsets[0] == 0, "offsets: expected to begin with 0, got " + std::to_string(crops.offsets[0]));
    for (int64_t n = 0; n < crops.count; ++n) {
        const PixelBox& box = crops.boxes[n];
        const bool ordered = box.x1 >= 0 && box.y1 >= 0 && box.x1 <= box.x2 && box.y1 <= box.y2;
        require(ordered, "boxes[" + std::to_string(n) + "]: expected 0 <= x1 <= x2 and 0 <= y1 <= y2, got " + describe(box));
        require(crops.offsets[n + 1] - crops.offsets[n] == box.area(),
                "offsets[" + std::to_string(n + 1) + "]: expected " + std::to_string(crops.offsets[n] + box.area()) + ", got " +
                    std::to_string(crops.offsets[n + 1]));
    }
    require(crops.offsets[crops.count] == data_size,
            "data: expected " + std::to_string(crops.offsets[crops.count]) + " values, got " + std::to_string(data_size));
}

void check_crops_inside(const CropsView& crops, const Shape& shape) {
    for (int64_t n = 0; n < crops.count; ++n)
        require(crops.boxes[n].x2 <= shape.width && crops.boxes[n].y2 <= shape.height,
                "boxes[" + std::to_string(n) + "]: expected to lie inside " + std::to_string(shape.width) + " x " +
                    std::to_string(shape.height) + " pixels, got " + describe(crops.boxes[n]));
}

std::vector<int64_t> crop_offsets(const std::vector<PixelBox>& boxes) {
    std::vector<int64_t> offsets{0};
    for (const PixelBox& box : boxes) offsets.push_back(offsets.back() + box.area());
    return offsets;
}

void crops_to_dense(const CropsView& crops, const Shape& shape, uint8_t* masks) {
    parallel_for(crops.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const PixelBox& box = crops.boxes[n];
            const uint8_t* from = crops.data + crops.offsets[n];
            for (int64_t y = box.y1; y < box.y2; ++y, from += box.width())
                std::transform(from, from + box.width(), masks + (n * shape.height + y) * shape.width + box.x1,
                               [](uint8_t v) -> uint8_t { return v != 0; });
        }
    });
}

std::vector<PixelBox> tight_boxes(const uint8_t* masks, int64_t count, const Shape& shape) {
    std::vector<PixelBox> boxes(static_cast<size_t>(count));
    parallel_for(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) boxes[n] = tight_box(masks + n * shape.height * shape.width, shape);
    });
    return boxes;
}

void cut_crops(const uint8_t* masks, const Shape& shape, const std::vector<PixelBox>& boxes, const std::vector<int64_t>& offsets,
               uint8_t* data) {
    parallel_for(static_cast<int64_t>(boxes.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const PixelBox& box = boxes[n];
            uint8_t* to = data + offsets[n];
            for (int64_t y = box.y1; y < box.y2; ++y, to += box.width())
                std::memcpy(to, masks + (n * shape.height + y) * shape.width + box.x1, static_cast<size_t>(box.width()));
        }
    });
}

}  // namespace kerf
