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
    enum control_command command = control_request_parse(slice_of(line, len), why, sizeof(why));
    FUZZ_EXPECT(command == CONTROL_RELOAD || command == CONTROL_STATUS || command == CONTROL_STOP ||
                command == CONTROL_BAD);
    FUZZ_EXPECT(command != CONTROL_BAD || (why[0] != '\0' && memchr(why, '\0', sizeof(why))));
    free(line);
    return 0;
}
