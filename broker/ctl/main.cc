// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbrokerctl: see sockbrokerctl(1).
#include <clocale>

#include "broker/base/standard_streams.h"
#include "broker/ctl/options.h"
#include "broker/ctl/output.h"
#include "broker/ctl/verbs.h"

int main(int argc, char* argv[]) {
        sockbroker::open_standard_streams();
        std::setlocale(LC_TIME, "");
        const auto options = sockbroker::ctl::parse_options(argc, argv);
        if (!options) {
                sockbroker::ctl::complain(options.error().text());
                sockbroker::ctl::Options none;
                none.json = sockbroker::ctl::json_wanted(argc, argv);
                return sockbroker::ctl::end_with(none, sockbroker::ctl::kExitUsage);
        }
        return sockbroker::ctl::run(*options);
}
