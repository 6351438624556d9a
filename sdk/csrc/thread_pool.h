// The core's own threads: persistent, asleep between jobs (they never spin while a network runs), one job at a time.
#pragma once

#include <cstdint>

namespace kerf {

// Number of threads that share a job, the caller's own included. Starts as the number of CPUs this process may use.
int num_threads();

// Blocks until a running job is done. Throws InputError outside [1, 256] and Error when called from inside a job.
void set_num_threads(int count);

namespace detail {
using RangeCall = void (*)(const void* body, int64_t begin, int64_t end);
void run_ranges(int64_t count, int64_t grain, RangeCall call, const void* body);
}  // namespace detail

// Calls body(begin, end) over disjoint ranges of at most `grain` indices that cover [0, count), on several threads, and returns when all are
// done. A nested call, or one made while another thread's job is running, does all its ranges on the calling thread. The first exception of
// any range is thrown here, after the others have finished.
template <class Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
    detail::run_ranges(
        count, grain, [](const void* b, int64_t begin, int64_t end) { (*static_cast<const Body*>(b))(begin, end); }, &body);
}

}  // namespace kerf
