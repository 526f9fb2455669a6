// The three descriptors that every program is started with, or not: our programs' way with them.
//
// Thread safety: open_missing_streams before there are threads; write_to_stderr from any thread.
#pragma once

#include <string_view>

namespace ringtail {

// Opens /dev/null for those of the descriptors 0 to 2 that are closed; otherwise the next file that is opened
// takes the number, and what is printed goes into it. First thing in main. Input is at its end then; writing to
// standard output fails with EBADF, for a result that nobody gets must not look like one; messages are lost.
void open_missing_streams();

// Writes all of `text`, or as much as can be. What a program did is the same whether or not somebody can hear of
// it, so this has no error, and throws nothing. Blocks as whoever reads pleases.
void write_to_stderr(std::string_view text) noexcept;

}  // namespace ringtail
