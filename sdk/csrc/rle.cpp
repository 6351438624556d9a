#include "rle.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common.h"
#include "thread_pool.h"

namespace kerf {
namespace {

constexpr int64_t kMaxCount = std::numeric_limits<uint32_t>::max();

// Six bits a character from '0': five of the number, low first, and "more follows". Numbers are signed.
constexpr char kFirstCharacter = 48;
constexpr int kBits = 5, kMore = 0x20, kSign = 0x10, kMaxCharacters = 8;  // 40 bits hold every difference of two counts

void append_number(std::string& text, int64_t value) {
    for (bool more = true; more;) {
        int bits = static_cast<int>(value & 0x1f);
        value >>= kBits;
        more = (bits & kSign) ? value != -1 : value != 0;
        text.push_back(static_cast<char>(kFirstCharacter + (more ? bits | kMore : bits)));
    }
}

int64_t read_number(std::string_view text, size_t& at, const std::string& name) {
    int64_t value = 0;
    for (int shift = 0; shift < kMaxCharacters * kBits; shift += kBits) {
        require(at < text.size(), name + ": the text ends inside a number");
        const int bits = static_cast<unsigned char>(text[at]) - kFirstCharacter;
        require(bits >= 0 && bits < 64, name + ": expected characters '0' to 'o', got code " +
                                            std::to_string(static_cast<unsigned char>(text[at])) + " at position " + std::to_string(at));
        ++at;
        value |= static_cast<int64_t>(bits & 0x1f) << shift;
        if (bits & kMore) continue;
        return bits & kSign ? value - (int64_t{1} << (shift + kBits)) : value;
    }
    throw InputError(name + ": a number has more than " + std::to_string(kMaxCharacters) + " characters");
}

// (rows, columns) -> (columns, rows) in blocks that fit the first-level cache.
KERF_CLONES void transpose_bytes(const uint8_t* from, int64_t rows, int64_t columns, uint8_t* to) {
    constexpr int64_t kBlock = 32;
    for (int64_t r = 0; r < rows; r += kBlock)
        for (int64_t c = 0; c < columns; c += kBlock)
            for (int64_t x = c; x < std::min(columns, c + kBlock); ++x)
                for (int64_t y = r; y < std::min(rows, r + kBlock); ++y) to[x * rows + y] = from[y * columns + x] != 0;
}

const uint8_t* find(const uint8_t* begin, const uint8_t* end, uint8_t value) {
    const void* found = begin == end ? nullptr : std::memchr(begin, value, static_cast<size_t>(end - begin));
    return found ? static_cast<const uint8_t*>(found) : end;
}

std::string encode_crop(const PixelBox& box, const uint8_t* crop, const Shape& shape) {
    std::vector<uint8_t> columns(static_cast<size_t>(box.area()));
    transpose_bytes(crop, box.height(), box.width(), columns.data());
    RunWriter runs;
    for (int64_t x = 0; x < box.width(); ++x) {
        const uint8_t *column = columns.data() + x * box.height(), *end = column + box.height();
        const int64_t origin = (box.x1 + x) * shape.height + box.y1;
        for (const uint8_t* begin = find(column, end, 1); begin < end;) {
            const uint8_t* stop = find(begin, end, 0);
            runs.add(origin + (begin - column), origin + (stop - column));
            begin = find(stop, end, 1);
        }
    }
    const std::vector<uint32_t> counts = runs.take_counts(shape.height * shape.width);
    return rle_string(counts.data(), counts.size());
}

// Calls run(begin, end) for every foreground run that is not empty.
template <class Run>
void for_each_run(const std::vector<uint32_t>& counts, const Run& run) {
    int64_t at = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
        if (i % 2 == 1 && counts[i] > 0) run(at, at + counts[i]);
        at += counts[i];
    }
}

PixelBox tight_box(const std::vector<uint32_t>& counts, int64_t height) {
    int64_t left = kMaxCount, right = -1, top = height, bottom = -1;
    for_each_run(counts, [&](int64_t begin, int64_t end) {
        const int64_t first = begin / height, last = (end - 1) / height;
        left = std::min(left, first);
        right = last;
        // A run that goes on in the next column reaches the bottom of one and the top of the other.
        top = std::min(top, first < last ? 0 : begin % height);
        bottom = std::max(bottom, first < last ? height - 1 : (end - 1) % height);
    });
    if (right < 0) return {0, 0, 0, 0};
    return {static_cast<int32_t>(left), static_cast<int32_t>(top), static_cast<int32_t>(right + 1), static_cast<int32_t>(bottom + 1)};
}

}  // namespace

std::vector<uint32_t> RunWriter::take_counts(int64_t total) {
    std::vector<uint32_t> counts;
    int64_t at = 0;
    for (const int64_t edge : edges_) {
        counts.push_back(static_cast<uint32_t>(edge - at));
        at = edge;
    }
    if (at < total || counts.empty()) counts.push_back(static_cast<uint32_t>(total - at));
    edges_.clear();
    return counts;
}

void check_rle_shape(const Shape& shape) {
    require(shape.height == 0 || shape.width <= kMaxCount / shape.height,
            "shape: expected at most " + std::to_string(kMaxCount) + " pixels, got " + std::to_string(shape.height) + " x " +
                std::to_string(shape.width));
}

std::string rle_string(const uint32_t* counts, size_t size) {
    std::string text;
    for (size_t i = 0; i < size; ++i) append_number(text, i > 2 ? static_cast<int64_t>(counts[i]) - counts[i - 2] : counts[i]);
    return text;
}

std::vector<uint32_t> rle_counts(std::string_view text, const std::string& name) {
    std::vector<uint32_t> counts;
    for (size_t at = 0; at < text.size();) {
        int64_t count = read_number(text, at, name);
        if (counts.size() > 2) count += counts[counts.size() - 2];
        require(count >= 0 && count <= kMaxCount,
                name + ": run " + std::to_string(counts.size()) + " has length " + std::to_string(count) + ", expected 0 to 2^32 - 1");
        counts.push_back(static_cast<uint32_t>(count));
    }
    return counts;
}

std::vector<std::string> rle_encode(const CropsView& crops, const Shape& shape) {
    check_rle_shape(shape);
    std::vector<std::string> texts(static_cast<size_t>(crops.count));
    parallel_for(crops.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) texts[n] = encode_crop(crops.boxes[n], crops.data + crops.offsets[n], shape);
    });
    return texts;
}

DecodedMask rle_decode(const std::vector<uint32_t>& counts, const Shape& shape, const std::string& name) {
    int64_t sum = 0;
    for (const uint32_t count : counts) sum += count;
    require(sum == shape.height * shape.width, name + ": expected counts that sum to " + std::to_string(shape.height) + " x " +
                                                   std::to_string(shape.width) + " pixels, got " + std::to_string(sum));
    DecodedMask mask{tight_box(counts, shape.height), {}};
    const PixelBox& box = mask.box;
    std::vector<uint8_t> columns(static_cast<size_t>(box.area()), 0);
    for_each_run(counts, [&](int64_t begin, int64_t end) {
        for (int64_t x = begin / shape.height; x <= (end - 1) / shape.height; ++x) {
            const int64_t top = std::max(begin, x * shape.height) - x * shape.height, bottom = std::min(end - x * shape.height, shape.height);
            std::memset(columns.data() + (x - box.x1) * box.height() + top - box.y1, 1, static_cast<size_t>(bottom - top));
        }
    });
    mask.crop.resize(columns.size());
    transpose_bytes(columns.data(), box.width(), box.height(), mask.crop.data());
    return mask;
}

}  // namespace kerf
