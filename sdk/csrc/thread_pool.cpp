#include "thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define KERF_HAS_FORK 1
#endif

#include "common.h"

namespace kerf {
namespace {

constexpr int kMaxThreads = 256;
thread_local bool inside_job = false;

// One parallel_for; lives on the caller's stack until every helper has left it.
struct Job {
    int64_t count;
    int64_t grain;
    detail::RangeCall call;
    const void* body;
    std::atomic<int64_t> next{0};
    std::mutex error_mutex;
    std::exception_ptr error;

    void work() {
        inside_job = true;
        for (;;) {
            const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
            if (begin >= count) break;
            try {
                call(body, begin, std::min(count, begin + grain));
            } catch (...) {
                const std::lock_guard<std::mutex> lock(error_mutex);
                if (!error) error = std::current_exception();
                next.store(count, std::memory_order_relaxed);  // nobody needs the rest
            }
        }
        inside_job = false;
    }
};

class ThreadPool {
public:
    explicit ThreadPool(int size) : size_(size) {}

    int size() const { return size_.load(std::memory_order_relaxed); }

    void resize(int size) {
        const std::lock_guard<std::mutex> owner(owner_);
        stop_helpers();
        size_.store(size, std::memory_order_relaxed);
    }

    // False when another thread owns the pool: the caller then does the job alone.
    bool try_run(Job& job) {
        const std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
        if (!owner) return false;
        start_helpers();
        const int64_t chunks = (job.count + job.grain - 1) / job.grain;
        offer(job, static_cast<int>(std::min<int64_t>(chunks - 1, static_cast<int64_t>(helpers_.size()))));
        job.work();
        withdraw();
        return true;
    }

private:
    void start_helpers() {
        // Lazily, so that a forked child that never computes starts no thread.
        while (static_cast<int>(helpers_.size()) < size() - 1) helpers_.emplace_back([this] { helper_loop(); });
    }

    void stop_helpers() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (std::thread& helper : helpers_) helper.join();
        helpers_.clear();
        stopping_ = false;
    }

    void offer(Job& job, int helpers) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            job_ = &job;
            places_ = helpers;
        }
        for (int i = 0; i < helpers; ++i) wake_.notify_one();
    }

    // Helpers that have not woken up yet lose their place; those at work are waited for.
    void withdraw() {
        std::unique_lock<std::mutex> lock(mutex_);
        places_ = 0;
        idle_.wait(lock, [this] { return working_ == 0; });
        job_ = nullptr;
    }

    void helper_loop() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return stopping_ || places_ > 0; });
            if (stopping_) return;
            --places_;
            ++working_;
            Job* job = job_;
            lock.unlock();
            job->work();
            lock.lock();
            if (--working_ == 0) idle_.notify_one();
        }
    }

    std::atomic<int> size_;
    std::mutex owner_;  // held by the thread whose job is running
    std::vector<std::thread> helpers_;
    std::mutex mutex_;  // guards what follows
    std::condition_variable wake_, idle_;
    Job* job_ = nullptr;
    int places_ = 0;   // helpers that may still join the job
    int working_ = 0;  // helpers inside the job
    bool stopping_ = false;
};

std::atomic<ThreadPool*> current_pool{nullptr};

#ifdef KERF_HAS_FORK
// The child has the parent's pool object but none of its threads, and its mutexes may be locked for ever: leave it and begin anew.
void replace_pool_in_child() {
    current_pool.store(new ThreadPool(current_pool.load()->size()));
    inside_job = false;
}
#endif

// Never destroyed: threads of the host program may still be inside a job while the process exits.
ThreadPool& pool() {
    static const bool created = [] {
        const int cpus = static_cast<int>(std::thread::hardware_concurrency());
        current_pool.store(new ThreadPool(std::clamp(cpus, 1, kMaxThreads)));
#ifdef KERF_HAS_FORK
        pthread_atfork(nullptr, nullptr, replace_pool_in_child);
#endif
        return true;
    }();
    (void)created;
    return *current_pool.load(std::memory_order_acquire);
}

}  // namespace

int num_threads() { return pool().size(); }

void set_num_threads(int count) {
    require(count >= 1 && count <= kMaxThreads,
            "num_threads: expected 1 to " + std::to_string(kMaxThreads) + ", got " + std::to_string(count));
    if (inside_job) throw Error("set_num_threads was called from inside a parallel job");
    pool().resize(count);
}

namespace detail {

void run_ranges(int64_t count, int64_t grain, RangeCall call, const void* body) {
    if (count <= 0) return;
    grain = std::max<int64_t>(grain, 1);
    Job job{count, grain, call, body, {}, {}, nullptr};
    const bool shared = !inside_job && count > grain && pool().size() > 1 && pool().try_run(job);
    if (!shared) {
        const bool nested = inside_job;
        job.work();
        inside_job = nested;
    }
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace detail
}  // namespace kerf
