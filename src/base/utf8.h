// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
//
// Thread and process safety: pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ringtail {

// The length of the sequence at the start of `text`, which must not be empty; 0 where there is none.
std::size_t utf8_sequence(std::string_view text);

bool is_utf8(std::string_view text);

// The text, with U+FFFD in place of each byte that belongs to no sequence.
std::string to_utf8(std::string_view text);

}  // namespace ringtail
