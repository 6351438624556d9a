// Float memory that is kept between uses: a page fault costs about 2 us, so fresh memory for every picture would cost more than the work.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace kerf {

class HugeBuffer {
public:
    HugeBuffer() = default;
    ~HugeBuffer() { std::free(data_); }
    HugeBuffer(const HugeBuffer&) = delete;
    HugeBuffer& operator=(const HugeBuffer&) = delete;
    HugeBuffer(HugeBuffer&& other) noexcept : data_(other.data_), capacity_(other.capacity_) {
        other.data_ = nullptr;
        other.capacity_ = 0;
    }

    // At least `count` floats; the contents are lost when it grows. Aligned to a cache line, and to a huge page when that large.
    void reserve(size_t count) {
        if (count <= capacity_) return;
        std::free(data_);
        data_ = nullptr;
        capacity_ = 0;
        const size_t page = count * sizeof(float) >= kHugePage ? kHugePage : kCacheLine;
        const size_t bytes = (count * sizeof(float) + page - 1) / page * page;
        data_ = static_cast<float*>(std::aligned_alloc(page, bytes));
        if (!data_) throw std::bad_alloc();
        capacity_ = count;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (page == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
    }

    float* data() const { return data_; }

private:
    static constexpr size_t kHugePage = size_t{1} << 21, kCacheLine = 64;
    float* data_ = nullptr;
    size_t capacity_ = 0;
};

}  // namespace kerf
