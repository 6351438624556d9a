#include "polygons.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_map>

#include "common.h"
#include "thread_pool.h"

// Rings are walked along pixel edges with the foreground on the right. Where two foreground pixels touch only at a corner the walk stays with
// its own pixel, so parts are 4-connected. A ring that comes back to a corner is cut there; what is cut off encloses background: a hole.

namespace kerf {
namespace {

// A crop with a ring of background, so that no look-up leaves it.
class PaddedMask {
public:
    PaddedMask(const PixelBox& box, const uint8_t* crop)
        : width(box.width()), height(box.height()), stride_(width + 2), pixels_(static_cast<size_t>(stride_ * (height + 2)), 0) {
        for (int64_t y = 0; y < height; ++y)
            std::transform(crop + y * width, crop + (y + 1) * width, pixels_.data() + (y + 1) * stride_ + 1,
                           [](uint8_t v) -> uint8_t { return v != 0; });
    }

    bool operator()(int64_t x, int64_t y) const { return pixels_[(y + 1) * stride_ + x + 1]; }
    const uint8_t* row(int64_t y) const { return pixels_.data() + (y + 1) * stride_ + 1; }

    const int64_t width, height;

private:
    int64_t stride_;
    std::vector<uint8_t> pixels_;
};

const uint8_t* find(const uint8_t* begin, const uint8_t* end, uint8_t value) {
    const void* found = begin == end ? nullptr : std::memchr(begin, value, static_cast<size_t>(end - begin));
    return found ? static_cast<const uint8_t*>(found) : end;
}

// 4-connected components, as runs of pixels of one row with a union-find over them.
class Components {
public:
    explicit Components(const PaddedMask& mask) {
        row_begin_.push_back(0);
        for (int64_t y = 0; y < mask.height; ++y) {
            const uint8_t *row = mask.row(y), *end = row + mask.width;
            for (const uint8_t* begin = find(row, end, 1); begin < end;) {
                const uint8_t* stop = find(begin, end, 0);
                runs_.push_back({static_cast<int32_t>(begin - row), static_cast<int32_t>(stop - row)});
                begin = find(stop, end, 1);
            }
            row_begin_.push_back(static_cast<int32_t>(runs_.size()));
        }
        parent_.resize(runs_.size());
        std::iota(parent_.begin(), parent_.end(), 0);
        for (int64_t y = 1; y < mask.height; ++y) join_rows(y);
    }

    // The component of a foreground pixel, named by its first run.
    int32_t of(int64_t x, int64_t y) {
        const auto begin = runs_.begin() + row_begin_[y], end = runs_.begin() + row_begin_[y + 1];
        const auto run = std::upper_bound(begin, end, x, [](int64_t value, const Run& r) { return value < r.end; });
        return root(static_cast<int32_t>(run - runs_.begin()));
    }

private:
    struct Run {
        int32_t begin, end;
    };

    int32_t root(int32_t run) {
        while (parent_[run] != run) run = parent_[run] = parent_[parent_[run]];
        return run;
    }

    void join_rows(int64_t y) {
        int32_t above = row_begin_[y - 1], here = row_begin_[y];
        while (above < row_begin_[y] && here < row_begin_[y + 1]) {
            if (std::max(runs_[above].begin, runs_[here].begin) < std::min(runs_[above].end, runs_[here].end)) {
                const int32_t a = root(above), b = root(here);
                parent_[std::max(a, b)] = std::min(a, b);
            }
            runs_[above].end < runs_[here].end ? ++above : ++here;
        }
    }

    std::vector<Run> runs_;
    std::vector<int32_t> row_begin_, parent_;
};

struct Corner {
    Point point;
    bool crossing;  // foreground touches foreground diagonally here: the ring may come back
};

// Foreground pixels without foreground above whose upper edge no ring has passed yet.
class OpenEdges {
public:
    explicit OpenEdges(const PaddedMask& mask) : width_(mask.width), open_(static_cast<size_t>(mask.width * mask.height)) {
        for (int64_t y = 0; y < mask.height; ++y) {
            const uint8_t *row = mask.row(y), *above = mask.row(y - 1);
            for (int64_t x = 0; x < width_; ++x) open_[y * width_ + x] = row[x] & static_cast<uint8_t>(1 - above[x]);
        }
    }
    // First open edge in row-major order from `at` on, or -1.
    int64_t next(int64_t at) const {
        const uint8_t *end = open_.data() + open_.size(), *found = find(open_.data() + at, end, 1);
        return found == end ? -1 : found - open_.data();
    }
    void close(int64_t x, int64_t y) { open_[y * width_ + x] = 0; }

private:
    int64_t width_;
    std::vector<uint8_t> open_;
};

// Walks the ring that begins with the upper edge of pixel (x0, y0); the caller's scan makes its left end a corner.
std::vector<Corner> walk_ring(const PaddedMask& mask, int64_t x0, int64_t y0, OpenEdges& edges) {
    constexpr int kStepX[] = {1, 0, -1, 0}, kStepY[] = {0, 1, 0, -1};  // right, down, left, up: a turn to the right is + 1
    // Pixel ahead on the right of a vertex, seen in each direction; the pixel ahead on the left is that of the direction before.
    constexpr int kPixelX[] = {0, -1, -1, 0}, kPixelY[] = {0, 0, -1, -1};
    std::vector<Corner> corners;
    int64_t x = x0, y = y0;
    int direction = 0;
    do {
        if (direction == 0) edges.close(x, y);
        x += kStepX[direction];
        y += kStepY[direction];
        const int left = (direction + 3) % 4;
        const bool ahead_right = mask(x + kPixelX[direction], y + kPixelY[direction]);
        const bool ahead_left = mask(x + kPixelX[left], y + kPixelY[left]);
        if (ahead_right && !ahead_left) continue;
        corners.push_back({{static_cast<int32_t>(x), static_cast<int32_t>(y)}, !ahead_right && ahead_left});
        direction = ahead_right ? left : (direction + 1) % 4;
    } while (x != x0 || y != y0 || direction != 0);
    return corners;
}

// Cuts a ring at the corners that it passes twice. Such corners never interlock (all touch from the background's side), so a stack does.
std::vector<Ring> split_ring(const std::vector<Corner>& corners) {
    std::vector<Ring> rings;
    Ring open;
    std::unordered_map<int64_t, size_t> place;  // of the crossings in `open`
    for (const Corner& corner : corners) {
        if (!corner.crossing) {
            open.push_back(corner.point);
            continue;
        }
        const int64_t key = (static_cast<int64_t>(corner.point.y) << 32) + corner.point.x;
        const auto [seen, is_new] = place.try_emplace(key, open.size());
        if (!is_new) {
            // Crossings of the part cut off cannot come back, so their stale places do no harm.
            rings.emplace_back(open.begin() + static_cast<std::ptrdiff_t>(seen->second), open.end());
            open.resize(seen->second);
        }
        open.push_back(corner.point);
    }
    rings.push_back(std::move(open));
    return rings;
}

int64_t twice_area(const Ring& ring) {
    int64_t sum = 0;
    for (size_t i = 0; i < ring.size(); ++i) {
        const Point &a = ring[i], &b = ring[(i + 1) % ring.size()];
        sum += static_cast<int64_t>(a.x) * b.y - static_cast<int64_t>(b.x) * a.y;
    }
    return sum;
}

bool comes_before(const Point& a, const Point& b) { return a.y != b.y ? a.y < b.y : a.x < b.x; }

// Every ring begins with its first corner in row-major order.
void finish_ring(Ring& ring, const PixelBox& box) {
    std::rotate(ring.begin(), std::min_element(ring.begin(), ring.end(), comes_before), ring.end());
    for (Point& p : ring) p = {p.x + box.x1, p.y + box.y1};
}

std::vector<Part> trace_mask(const PixelBox& box, const uint8_t* crop) {
    const PaddedMask mask(box, crop);
    Components components(mask);
    OpenEdges edges(mask);
    std::unordered_map<int32_t, size_t> part_of;
    std::vector<Part> parts;
    for (int64_t at = edges.next(0); at >= 0; at = edges.next(at)) {
        const int64_t x = at % mask.width, y = at / mask.width;
        // A component's first edge in row-major order lies on its outer ring, so parts come out in the promised order.
        const auto [part, is_new] = part_of.try_emplace(components.of(x, y), parts.size());
        if (is_new) parts.push_back({Ring{}});
        for (Ring& ring : split_ring(walk_ring(mask, x, y, edges))) {
            finish_ring(ring, box);
            if (twice_area(ring) > 0)
                parts[part->second].front() = std::move(ring);
            else
                parts[part->second].push_back(std::move(ring));
        }
    }
    for (Part& part : parts)
        std::sort(part.begin() + 1, part.end(), [](const Ring& a, const Ring& b) { return comes_before(a.front(), b.front()); });
    return parts;
}

}  // namespace

std::vector<std::vector<Part>> polygons(const CropsView& crops) {
    std::vector<std::vector<Part>> found(static_cast<size_t>(crops.count));
    parallel_for(crops.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n)
            if (crops.boxes[n].area() > 0) found[n] = trace_mask(crops.boxes[n], crops.data + crops.offsets[n]);
    });
    return found;
}

}  // namespace kerf
