// A very small test harness: TEST(name) { CHECK(...); } registers itself; run_tests() runs all and counts what failed.
#pragma once

#include <cstdio>
#include <exception>
#include <vector>

namespace check {

struct Test {
    const char* name;
    void (*body)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

inline int& failures() {
    static int count = 0;
    return count;
}

struct Registration {
    Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

inline int run_tests() {
    for (const Test& test : tests()) {
        const int before = failures();
        try {
            test.body();
        } catch (const std::exception& error) {
            std::printf("  unexpected exception: %s\n", error.what());
            ++failures();
        }
        std::printf("%s %s\n", failures() == before ? "ok    " : "FAILED", test.name);
    }
    std::printf("%zu tests, %d failed checks\n", tests().size(), failures());
    return failures() == 0 && !tests().empty() ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                            \
    static void name();                                       \
    static const check::Registration name##_registered(#name, name); \
    static void name()

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            std::printf("  %s:%d: %s\n", __FILE__, __LINE__, #condition);      \
            ++check::failures();                                               \
        }                                                                      \
    } while (false)

#define CHECK_THROWS(type, expression)  \
    do {                                \
        bool thrown = false;            \
        try {                           \
            (void)(expression);         \
        } catch (const type&) {         \
            thrown = true;              \
        }                               \
        CHECK(thrown && #type);         \
    } while (false)
