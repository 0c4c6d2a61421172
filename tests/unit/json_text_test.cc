// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/json_text.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>

namespace sockbroker {
namespace {

TEST(JsonText, IsWhatTheLibraryOfTheToolWouldWrite) {
        using Json = nlohmann::ordered_json;
        std::string all;
        for (int c = 1; c < 256; c++) {
                all += static_cast<char>(c);
        }
        for (const std::string& text : {std::string("plain"), std::string("a\"b\\c\n\t\b\f\r\x01\x7f"),
                                        std::string("\xc3\xa4\xe2\x80\xae\xf0\x9f\x98\x80"), std::string()}) {
                EXPECT_EQ(JsonText(text).text(), Json(text).dump(-1, ' ', true)) << text;
                EXPECT_EQ(Json::parse(JsonText(text).text()), Json(text));
        }
        EXPECT_TRUE(Json::accept(JsonText(all).text())) << "whatever the bytes are";
        const JsonText written(all);
        for (const char c : written.text()) {
                EXPECT_TRUE(c >= 0x20 && c < 0x7f);
        }
}

TEST(JsonText, WritesObjectsAndArraysInTheirOrder) {
        EXPECT_EQ(JsonText({{"b", 1},
                            {"a", nullptr},
                            {"c", true},
                            {"d", {{"e", std::int64_t{-1}}, {"f", UINT64_MAX}}},
                            {"g", std::vector<std::string>{"x", "y"}},
                            {"h", std::vector<std::string>{}}})
                          .text(),
                  R"({"b":1,"a":null,"c":true,"d":{"e":-1,"f":18446744073709551615},"g":["x","y"],"h":[]})");
}

}  // namespace
}  // namespace sockbroker
