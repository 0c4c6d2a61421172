// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/durable_writer.h"

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "broker/policy/durable_file.h"

namespace sockbroker {

void DurableWriter::write(std::string text) {
        next_ = std::move(text);
        if (!busy_) {
                begin();
        }
}

void DurableWriter::when_written(Done done) {
        (next_ ? done_next_ : done_).push_back(std::move(done));
}

void DurableWriter::begin() {
        const auto text = std::make_shared<const std::string>(std::exchange(next_, {}).value_or(""));
        const auto result = std::make_shared<Result<void>>();
        worker_.run([path = path_, text,
                     result] { *result = replace_file(path, [&](const AppendText& append) { return append(*text); }); },
                    [this, result](const std::string& failure) { written(failure.empty() ? *result : fail(failure)); });
        busy_ = true;
        done_ = std::exchange(done_next_, {});
}

void DurableWriter::written(const Result<void>& result) {
        busy_ = false;
        const auto done = std::exchange(done_, {});
        if (next_) {
                begin();
        }
        const auto told = result ? result
                                 : fail(result.error().errnum,
                                        fmt::format("cannot write {} ({})", path_, result.error().message));
        for (const auto& one : done) {
                one(told);
        }
}

}  // namespace sockbroker
