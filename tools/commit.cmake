# Writes OUTPUT, a header with the commit of the working copy: "unknown" where there is no git or no repository,
# with "+" behind it where sources were changed since.
set(commit unknown)
find_program(git git)
if(git)
  execute_process(COMMAND ${git} describe --always --abbrev=12 --dirty=+ --exclude=*
    OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed)
    set(commit ${described})
  endif()
endif()
set(text "#pragma once\n\ninline constexpr const char* kCommit = \"${commit}\";\n")
set(before "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} before)
endif()
if(NOT text STREQUAL before)
  file(WRITE ${OUTPUT} "${text}")
endif()
