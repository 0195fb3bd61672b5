/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_control.c - lines from clients of the control socket.
 */
#include "master/control_request.h"
#include "t/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char why[128] = "";
    char *line = fuzz_exact_copy(bytes, len);
    struct control_request request;
    enum control_command command =
        control_request_parse(slice_of(line, len), &request, why, sizeof(why));
    FUZZ_EXPECT(command <= CONTROL_BAD && command == request.command);
    FUZZ_EXPECT(command != CONTROL_DRAIN || request.backend);
    FUZZ_EXPECT(command != CONTROL_EXPLAIN || request.url);
    FUZZ_EXPECT(command != CONTROL_LOG || request.level);
    control_request_fini(&request);
    FUZZ_EXPECT(command != CONTROL_BAD || (why[0] != '\0' && memchr(why, '\0', sizeof(why))));
    free(line);
    return 0;
}
