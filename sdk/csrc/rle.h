// COCO run lengths: column-major over the whole picture, beginning with background, and their compressed string. Contract: sdk/ops/rle.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "crops.h"

namespace kerf {

// Collects foreground runs in ascending column-major order; runs that touch become one.
class RunWriter {
public:
    // Positions [begin, end) of the column-major picture.
    void add(int64_t begin, int64_t end) {
        if (!edges_.empty() && edges_.back() == begin)
            edges_.back() = end;
        else
            edges_.insert(edges_.end(), {begin, end});
    }
    // The counts of a picture of `total` pixels; the writer is empty afterwards.
    std::vector<uint32_t> take_counts(int64_t total);

private:
    std::vector<int64_t> edges_;  // begin, end, begin, end, ...
};

// Throws InputError unless H * W fits the 32 bits of COCO's counts.
void check_rle_shape(const Shape& shape);

// Counts <-> COCO's string. rle_counts throws InputError on bad characters, a cut-off number and counts outside 32 bits; `name` begins the message.
std::string rle_string(const uint32_t* counts, size_t size);
std::vector<uint32_t> rle_counts(std::string_view text, const std::string& name);

std::vector<std::string> rle_encode(const CropsView& crops, const Shape& shape);

struct DecodedMask {
    PixelBox box;
    std::vector<uint8_t> crop;
};
// Throws InputError unless the counts sum to H * W.
DecodedMask rle_decode(const std::vector<uint32_t>& counts, const Shape& shape, const std::string& name);

}  // namespace kerf
