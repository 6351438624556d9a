// What every file of the core shares: the error hierarchy, and the macro that compiles a kernel for several instruction sets.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

// KERF_CLONES: compile the function for AVX-512, AVX2 and the baseline; the loader picks one. Only with GCC and glibc on x86-64 (ifunc);
// elsewhere (aarch64: NEON is part of the baseline) the compiler vectorises once. Sanitizers start before ifuncs can be resolved.
// The levels are named by features: a processor's name, such as arch=haswell, matches that generation only and leaves all others the baseline.
// The whole core is compiled with -ffp-contract=off, so that every clone and every machine computes the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#if __GNUC__ >= 12
#define KERF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KERF_CLONES __attribute__((target_clones("avx2", "default")))
#endif
#else
#define KERF_CLONES
#endif

// For the small helpers of cloned kernels: a call that is not inlined would run baseline code.
#define KERF_INLINE inline __attribute__((always_inline))

namespace kerf {

// Base of what the core throws; the bindings translate it to sdk.errors.KerfError.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// An argument is wrong; the message names what was expected and what came. Becomes sdk.errors.InputError.
struct InputError : Error {
    using Error::Error;
};

inline void require(bool condition, const std::string& message) {
    if (!condition) throw InputError(message);
}

}  // namespace kerf
