// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The messages of libbpf and of the verifier, kept instead of printed.
#pragma once

#include <bpf/libbpf.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

#ifdef __clang_analyzer__
// What /usr/include declares frees nothing, as the analyzer sees it, and each generated skeleton would leak.
extern "C" void bpf_object__destroy_skeleton(bpf_object_skeleton* skeleton);
#endif

namespace sockbroker {

// Collects while it lives. The verifier gives its reason last, so tail() is what a person needs.
class LibbpfLog {
public:
        LibbpfLog() : before_(libbpf_set_print(print)) { text().clear(); }
        ~LibbpfLog() { libbpf_set_print(before_); }
        LibbpfLog(const LibbpfLog&) = delete;
        LibbpfLog& operator=(const LibbpfLog&) = delete;

        [[nodiscard]] static std::string tail() {
                constexpr std::size_t kEnough = 4096;
                std::string result = text().size() > kEnough ? text().substr(text().size() - kEnough) : text();
                while (!result.empty() && result.back() == '\n') {
                        result.pop_back();
                }
                return result;
        }

private:
        static std::string& text() {
                static thread_local std::string collected;
                return collected;
        }
        static int print(libbpf_print_level level, const char* format, va_list arguments) {
                if (level != LIBBPF_WARN) {
                        return 0;
                }
                std::vector<char> buffer(1 << 16);  // the verifier's log comes in one piece
                const int length = vsnprintf(buffer.data(), buffer.size(), format, arguments);
                text().append(buffer.data(), std::min<std::size_t>(std::max(length, 0), buffer.size() - 1));
                return length;
        }

        libbpf_print_fn_t before_;
};

}  // namespace sockbroker
