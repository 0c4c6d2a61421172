// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/huge_pages.h"

#include <sys/mman.h>

#include <memory>

namespace sockbroker {

namespace {

constexpr std::size_t kPage = 65536;  // the largest that a kernel may have; it looks for huge ones within

}  // namespace

void prefer_huge_pages(void* memory, std::size_t bytes) {
        if (bytes >= kHugePage && std::align(kPage, kPage, memory, bytes) != nullptr) {
                (void)madvise(memory, bytes / kPage * kPage, MADV_HUGEPAGE);
        }
}

}  // namespace sockbroker
