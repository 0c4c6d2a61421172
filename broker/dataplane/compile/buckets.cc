// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/buckets.h"

#include <cstring>
#include <utility>

#include "broker/base/huge_pages.h"

namespace sockbroker {

namespace {

constexpr std::uint32_t kKeysAhead = 32;  // cells that are hashed all over memory are fetched so long before their turn

enum class Shape : std::uint8_t { kV4, kV6, kV6Long };

Shape shape_of(Family family, unsigned length) {
        return family == Family::kIpv4 ? Shape::kV4 : length <= 64 ? Shape::kV6 : Shape::kV6Long;
}

constexpr unsigned places(Shape shape) {
        return shape == Shape::kV4 ? 4 : shape == Shape::kV6 ? 3 : 2;
}

constexpr unsigned kRuleWords = sizeof(sb_rule) / sizeof(std::uint32_t);

// Word of the line at which the rule of a place stands.
constexpr unsigned rule_word(Shape shape, unsigned place) {
        return (shape == Shape::kV4 ? 4 : shape == Shape::kV6 ? 6 : 8) + kRuleWords * place;
}

// splitmix64: the seeds to be tried, one after another.
std::uint64_t seed_number(std::uint64_t n) {
        std::uint64_t z = (n + 1) * 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return (z ^ (z >> 31)) | 1;
}

std::uint32_t hash_of(Shape shape, const BucketKey& key, std::uint64_t seed) {
        return shape == Shape::kV6Long ? sb_hash_long(key.high, key.low, seed) : sb_hash(key.high, seed);
}

// Which key stands where, for one size and seed.
class CuckooTable {
public:
        // `references` become those of a region that begins with line 0, for all keys that are inserted.
        CuckooTable(Shape shape, std::span<const BucketKey> keys, std::uint32_t lines, std::uint64_t seed,
                    std::span<std::uint32_t> references)
                : shape_(shape),
                  places_(places(shape)),
                  lines_(lines),
                  hashes_(keys.size()),
                  cells_(std::size_t{lines} * places_),
                  filled_(lines),
                  references_(references),
                  random_(seed) {
                for (std::size_t i = 0; i < keys.size(); i++) {
                        hashes_[i] = hash_of(shape, keys[i], seed);
                }
        }

        [[nodiscard]] std::uint32_t first_line(std::uint32_t key) const { return sb_scale(hashes_[key], lines_); }
        [[nodiscard]] std::uint32_t second_line(std::uint32_t key) const {
                return sb_scale(sb_second(hashes_[key]), lines_);
        }

        // Where both lines are full, a key of one of them has to move to its other line, and so on.
        [[nodiscard]] bool insert(std::uint32_t key) {
                std::uint32_t line = first_line(key);
                if (take_free(line, key) || take_free(second_line(key), key)) {
                        return true;
                }
                for (unsigned kicks = 0; kicks < 500; kicks++) {
                        random_ = random_ * 6364136223846793005U + 1442695040888963407U;
                        const auto place = static_cast<unsigned>((random_ >> 33) % places_);
                        key = put(key, line, place);
                        line = line == first_line(key) ? second_line(key) : first_line(key);
                        if (take_free(line, key)) {
                                return true;
                        }
                }
                return false;
        }

        void fetch(std::uint32_t key) const { __builtin_prefetch(&cells_[std::size_t{first_line(key)} * places_], 1); }

private:
        bool take_free(std::uint32_t line, std::uint32_t key) {
                const std::uint8_t place = filled_[line];
                if (place == places_) {
                        return false;
                }
                filled_[line]++;
                (void)put(key, line, place);
                return true;
        }

        // Returns what was there.
        std::uint32_t put(std::uint32_t key, std::uint32_t line, unsigned place) {
                references_[key] = line * SB_LINE_WORDS + rule_word(shape_, place);
                return std::exchange(cells_[std::size_t{line} * places_ + place], key);
        }

        Shape shape_;
        unsigned places_;
        std::uint32_t lines_;
        Scratch<std::uint32_t> hashes_;
        Scratch<std::uint32_t> cells_;      // index of the key
        std::vector<std::uint8_t> filled_;  // places of each line, from the first: none becomes free again
        std::span<std::uint32_t> references_;
        std::uint64_t random_;
};

bool insert_all(CuckooTable& table, std::size_t keys) {
        for (std::uint32_t key = 0; key < keys; key++) {
                if (key + kKeysAhead < keys) {
                        table.fetch(key + kKeysAhead);
                }
                if (!table.insert(key)) {
                        return false;
                }
        }
        return true;
}

// Marks lines that are full and have keys in their second line.
void mark_overflow(std::span<sb_line> region, Shape shape, const CuckooTable& table,
                   std::span<const std::uint32_t> references) {
        std::vector<bool> overflows(region.size());
        for (std::uint32_t key = 0; key < references.size(); key++) {
                if (const auto first = table.first_line(key); first != references[key] / SB_LINE_WORDS) {
                        overflows[first] = true;
                }
        }
        for (std::size_t line = 0; line < region.size(); line++) {
                if (overflows[line]) {
                        region[line].words[rule_word(shape, 0) + 1] = SB_RULE_OVERFLOW;
                }
        }
}

std::uint64_t half_of(const std::uint8_t* bytes) {
        std::uint32_t words[2];
        std::memcpy(words, bytes, sizeof words);
        return sb_half(words[0], words[1]);
}

}  // namespace

BucketKey key_of(const Address& address) {
        if (address.family == Family::kIpv4) {
                std::uint32_t word = 0;
                std::memcpy(&word, address.bytes.data(), sizeof word);
                return {.high = word};
        }
        return {.high = half_of(address.bytes.data()), .low = half_of(address.bytes.data() + 8)};
}

BucketKey mask_of(Family family, unsigned length) {
        Address ones;
        ones.family = family;
        ones.bytes.fill(0xff);
        return key_of(masked(ones, length));
}

void write_bucket(RuleMemory& lines, Family family, unsigned length, std::uint32_t reference, const BucketKey& key,
                  const sb_rule& rule) {
        sb_line& line = lines[reference / SB_LINE_WORDS];
        const Shape shape = shape_of(family, length);
        const unsigned place = (reference % SB_LINE_WORDS - rule_word(shape, 0)) / kRuleWords;
        std::uint32_t* const words = line.words + reference % SB_LINE_WORDS;
        sb_rule marked = rule;
        marked.flags |= words[1] & SB_RULE_OVERFLOW;
        std::memcpy(words, &marked, sizeof marked);
        switch (shape) {
        case Shape::kV4:
                line.v4.key[place] = static_cast<std::uint32_t>(key.high);
                break;
        case Shape::kV6:
                line.v6.key[place] = key.high;
                break;
        case Shape::kV6Long:
                line.v6_long.key[place][0] = key.high;
                line.v6_long.key[place][1] = key.low;
                break;
        }
}

bool place_keys(RuleMemory& lines, Family family, unsigned length, std::span<const BucketKey> keys,
                sb_length& description, std::span<std::uint32_t> references) {
        const Shape shape = shape_of(family, length);
        const BucketKey mask = mask_of(family, length);
        description.mask = length > 64 ? mask.low : mask.high;
        description.first = static_cast<std::uint32_t>(lines.size());

        // Three quarters full: most keys then stand in their first line. Another seed is tried before more room.
        std::size_t size = keys.size() <= places(shape) ? 1 : keys.size() * 4 / (std::size_t{3} * places(shape)) + 1;
        for (std::uint64_t attempt = 0;; attempt++) {
                if (description.first + size > lines.room()) {
                        return false;
                }
                description.lines = static_cast<std::uint32_t>(size);
                description.seed = seed_number(attempt);
                CuckooTable table(shape, keys, description.lines, description.seed, references);
                if (insert_all(table, keys.size())) {
                        lines.resize(description.first + size);
                        mark_overflow(lines.lines(description.first, size), shape, table, references);
                        for (std::uint32_t& reference : references) {
                                reference += description.first * SB_LINE_WORDS;
                        }
                        return true;
                }
                size += attempt % 2 == 0 ? 0 : size / 16 + 1;
        }
}

}  // namespace sockbroker
