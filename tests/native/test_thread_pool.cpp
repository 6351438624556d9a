#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

#include "check.h"
#include "common.h"
#include "thread_pool.h"

using kerf::parallel_for;

namespace {

// Every index once: an index visited twice or not at all shows in its own counter.
bool covers(int64_t count, int64_t grain) {
    std::vector<int> visits(static_cast<size_t>(count), 0);
    parallel_for(count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++visits[i];
    });
    for (const int v : visits)
        if (v != 1) return false;
    return true;
}

}  // namespace

TEST(every_index_is_visited_once) {
    for (const int threads : {1, 2, 3, 8}) {
        kerf::set_num_threads(threads);
        CHECK(kerf::num_threads() == threads);
        for (const int64_t count : {0, 1, 2, 7, 64, 1000})
            for (const int64_t grain : {0, 1, 3, 64, 5000}) CHECK(covers(count, grain));
    }
}

TEST(ranges_are_at_most_a_grain) {
    kerf::set_num_threads(4);
    std::atomic<int64_t> longest{0};
    parallel_for(1000, 7, [&](int64_t begin, int64_t end) {
        int64_t seen = longest.load();
        while (end - begin > seen && !longest.compare_exchange_weak(seen, end - begin)) {
        }
    });
    CHECK(longest == 7);
}

TEST(nested_calls_run_on_the_calling_thread) {
    kerf::set_num_threads(4);
    std::atomic<int> elsewhere{0}, total{0};
    parallel_for(16, 1, [&](int64_t, int64_t) {
        const auto caller = std::this_thread::get_id();
        parallel_for(8, 1, [&](int64_t, int64_t) {
            ++total;
            if (std::this_thread::get_id() != caller) ++elsewhere;
        });
    });
    CHECK(total == 16 * 8);
    CHECK(elsewhere == 0);
}

TEST(concurrent_callers_all_finish) {
    kerf::set_num_threads(3);
    std::atomic<int64_t> sum{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 8; ++c)
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 50; ++repeat)
                parallel_for(100, 3, [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) sum += i;
                });
        });
    for (std::thread& caller : callers) caller.join();
    CHECK(sum == 8 * 50 * 4950);
}

TEST(an_exception_reaches_the_caller_and_the_pool_survives) {
    kerf::set_num_threads(4);
    for (int repeat = 0; repeat < 20; ++repeat)
        CHECK_THROWS(kerf::InputError, parallel_for(100, 1, [](int64_t begin, int64_t) { kerf::require(begin != 40, "forty"); }));
    CHECK(covers(500, 1));
}

TEST(the_size_changes_while_others_compute) {
    std::atomic<bool> stop{false}, right{true};
    std::thread worker([&] {
        while (!stop)
            if (!covers(200, 5)) right = false;
    });
    for (int repeat = 0; repeat < 30; ++repeat) kerf::set_num_threads(1 + repeat % 5);
    stop = true;
    worker.join();
    CHECK(right);
}

TEST(sizes_out_of_range_and_from_inside_are_refused) {
    kerf::set_num_threads(2);
    CHECK_THROWS(kerf::InputError, kerf::set_num_threads(0));
    CHECK_THROWS(kerf::InputError, kerf::set_num_threads(257));
    CHECK_THROWS(kerf::Error, parallel_for(4, 1, [](int64_t, int64_t) { kerf::set_num_threads(3); }));
    CHECK(kerf::num_threads() == 2);
}
